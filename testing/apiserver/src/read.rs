//! Requests that read objects: get, list and watch.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use axum::{
    Json,
    http::{StatusCode, header},
    response::{IntoResponse, Response},
};
use jiff::Timestamp;
use serde_json::{Value, json};

use super::{
    call::Call,
    events,
    options::{At, Page, Watching, token},
    scale::scale,
    status::Failure,
    store::{Key, in_namespace},
    table,
    watch::{Form, Watch},
};

/// How long a client is kept waiting for a version that is not there yet.
const VERSION_PATIENCE: Duration = Duration::from_secs(3);

impl Call<'_> {
    pub(super) fn table(&self, objects: &[Value], meta: &Value) -> Value {
        table::table(
            &self.target.resource,
            objects,
            meta,
            self.query.get("includeObject").unwrap_or("Metadata"),
            Timestamp::now(),
        )
    }

    pub(super) fn get(&self) -> Result<Response, Failure> {
        let key = self.target.key();
        let object = self.with(|s| s.get(&self.target.resource, &key).cloned());
        let object = object.ok_or_else(|| Failure::not_found(&self.target.asked, &key.1))?;
        if self.target.subresource.as_deref() == Some("scale") {
            return Ok(Json(scale(&object)).into_response());
        }
        Ok(self.show(StatusCode::OK, &object))
    }

    pub(super) async fn list(&self) -> Result<Response, Failure> {
        let selection = self.selection()?;
        let page = Page::parse(&self.query)?;
        let (At::NotOlder(wanted) | At::Exactly(wanted)) = page.at;
        self.wait_for_version(wanted).await?;
        let (found, left, version) = self.with(|s| {
            let present = s.version;
            let table = s.table(&self.target.resource);
            let past: BTreeMap<Key, Arc<Value>>;
            let (objects, version) = match page.at {
                At::NotOlder(_) => (&table.objects, present),
                // Nothing has changed since: a page of a large list is not worth a copy of it.
                At::Exactly(version)
                    if table
                        .since(version)
                        .is_some_and(|mut since| since.next().is_none()) =>
                {
                    (&table.objects, version)
                }
                At::Exactly(version) => {
                    past = table.at(version).ok_or_else(|| match &page.after {
                        Some(after) => Failure::page_forgotten(&token(present, after)),
                        None => Failure::version_forgotten(),
                    })?;
                    (&past, version)
                }
            };
            let mut rest = in_namespace(objects, self.target.namespace.as_deref()).filter(|(key, o)| {
                page.after.as_ref().is_none_or(|after| *key > after) && selection.matches(o)
            });
            let found: Vec<(Key, Arc<Value>)> = rest
                .by_ref()
                .take(page.limit)
                .map(|(k, o)| (k.clone(), o.clone()))
                .collect();
            Ok((found, rest.count(), version))
        })?;
        let mut meta = json!({ "resourceVersion": version.to_string() });
        if let Some((last, _)) = found.last().filter(|_| left > 0) {
            meta["continue"] = json!(token(version, last));
            if selection.is_everything() {
                meta["remainingItemCount"] = json!(left);
            }
        }
        let objects: Vec<Value> = match &self.form {
            Form::Table(_) => found.iter().map(|(_, o)| Value::clone(o)).collect(),
            Form::Object | Form::Metadata => found.iter().map(|(_, o)| self.item(o)).collect(),
        };
        let list = match &self.form {
            Form::Table(_) => self.table(&objects, &meta),
            Form::Object | Form::Metadata => self.list_of(objects, meta),
        };
        Ok(Json(list).into_response())
    }

    /// A list of items.
    pub(super) fn list_of(&self, items: Vec<Value>, meta: Value) -> Value {
        let kind = &self.target.asked;
        let (kind, version) = match &self.form {
            Form::Metadata => (
                "PartialObjectMetadataList".to_owned(),
                "meta.k8s.io/v1".to_owned(),
            ),
            Form::Object | Form::Table(_) => (format!("{}List", kind.kind), kind.api_version()),
        };
        json!({ "kind": kind, "apiVersion": version, "metadata": meta, "items": items })
    }

    /// An object as an item of a list. The kind of built-in ones is that of the list.
    pub(super) fn item(&self, object: &Value) -> Value {
        if self.form == Form::Metadata {
            return table::partial(object);
        }
        let mut item = if self.new_events {
            events::shown(object.clone())
        } else {
            object.clone()
        };
        if let (None, Some(fields)) = (&self.target.resource.custom, item.as_object_mut()) {
            fields.remove("kind");
            fields.remove("apiVersion");
        }
        item
    }

    async fn wait_for_version(&self, wanted: u64) -> Result<(), Failure> {
        let mut versions = self.server.store.versions();
        let reached = tokio::time::timeout(VERSION_PATIENCE, versions.wait_for(|v| *v >= wanted))
            .await
            .is_ok();
        if reached {
            return Ok(());
        }
        Err(Failure::version_too_large(wanted, self.with(|s| s.version)))
    }

    pub(super) fn watch(&self) -> Result<Response, Failure> {
        let selection = self.selection()?;
        let options = Watching::parse(&self.query)?;
        let (initial, from) = self.with(|s| {
            let version = s.version;
            if options.version > 0 && !options.initial {
                return (Vec::new(), options.version);
            }
            let objects = s
                .table(&self.target.resource)
                .list(self.target.namespace.as_deref());
            (
                objects
                    .filter(|(_, o)| selection.matches(o))
                    .map(|(_, o)| o.clone())
                    .collect(),
                version,
            )
        });
        let form = match &self.form {
            Form::Table(_) => Form::Table(self.query.get("includeObject").unwrap_or("Metadata").to_owned()),
            other => other.clone(),
        };
        let body = Watch {
            store: self.server.store.clone(),
            target: self.target.clone(),
            selection,
            form,
            options,
            from,
            initial,
            columns_shown: false,
            epoch: self.server.epoch.clone(),
        }
        .body();
        Ok(([(header::CONTENT_TYPE, "application/json")], body).into_response())
    }
}
