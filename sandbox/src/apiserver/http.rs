//! From an HTTP request to its answer.

use std::{sync::Arc, time::Duration};

use axum::{
    Json,
    body::to_bytes,
    extract::{Request, State as Shared},
    http::{HeaderMap, Method, StatusCode, header},
    response::{IntoResponse, Response},
};
use jiff::Timestamp;
use serde_json::{Value, json};
use tokio::sync::watch;

use super::{
    delete, discovery, events,
    request::{Query, Target},
    selector::Selection,
    status::Failure,
    store::{Key, State, Store},
    strategic, table,
    watch::{Form, Watch},
    write::Write,
};

/// Largest body, that of the real server.
const MAX_BODY: usize = 3 << 20;

/// What every request needs.
#[derive(Clone)]
pub(crate) struct Server {
    pub store: Arc<Store>,
    pub epoch: watch::Receiver<u64>,
}

/// Answers a request.
pub(crate) async fn handle(Shared(server): Shared<Server>, request: Request) -> Response {
    match answer(&server, request).await {
        Ok(response) => response,
        Err(failure) => failure.into_response(),
    }
}

async fn answer(server: &Server, request: Request) -> Result<Response, Failure> {
    let (head, body) = request.into_parts();
    let path = head.uri.path().to_owned();
    let query = Query::parse(head.uri.query());
    if head.method == Method::GET
        && let Some(response) = fixed(server, &path, &head.headers)
    {
        return response;
    }
    let bytes = to_bytes(body, MAX_BODY)
        .await
        .map_err(|e| Failure::bad_request(format!("could not read the body: {e}")))?;
    if path == "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews" && head.method == Method::POST {
        let mut review = parse(&bytes)?;
        review["status"] = json!({ "allowed": true });
        return Ok((StatusCode::CREATED, Json(review)).into_response());
    }
    let mut target = server
        .store
        .with(|s| Target::parse(&s.registry, &path))
        .ok_or_else(Failure::no_such_path)?;
    if server.store.with(|s| s.is_denied(&target.resource)) {
        return Err(Failure::forbidden(&target, head.method.as_str()));
    }
    let form = form(&head.headers)?;
    let new_events = events::is_new_form(&target.resource);
    if new_events {
        let old = server.store.with(|s| s.registry.get("", "v1", "events").cloned());
        target.resource = old.ok_or_else(Failure::no_such_path)?;
    }
    let call = Call {
        server,
        target,
        query,
        form,
        new_events,
        headers: &head.headers,
    };
    match (&head.method, call.target.name.is_some()) {
        (&Method::GET, false) if call.query.flag("watch") && new_events => Err(Failure::method_not_allowed()),
        (&Method::GET, false) if call.query.flag("watch") => call.watch(),
        (&Method::GET, false) => call.list(),
        (&Method::GET, true) => call.get(),
        (&Method::POST, false) => call.create(&bytes),
        (&Method::POST, true) if call.target.subresource.as_deref() == Some("binding") => call.bind(&bytes),
        (&Method::PUT, true) => call.update(&bytes),
        (&Method::PATCH, true) => call.patch(&bytes),
        (&Method::DELETE, true) => call.delete(&bytes),
        (&Method::DELETE, false) => call.delete_all(&bytes),
        _ => Err(Failure::method_not_allowed()),
    }
}

/// Paths that are not about objects.
fn fixed(server: &Server, path: &str, headers: &HeaderMap) -> Option<Result<Response, Failure>> {
    let accept = header(headers, header::ACCEPT);
    let aggregated = accept.contains("as=APIGroupDiscoveryList") && accept.contains("v=v2;");
    let ok = |value: Value| Some(Ok(Json(value).into_response()));
    let discovered = |value: Value| {
        let kind = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList";
        Some(Ok(
            ([(header::CONTENT_TYPE, kind)], value.to_string()).into_response()
        ))
    };
    let found = |value: Option<Value>| {
        Some(
            value
                .map(|v| Json(v).into_response())
                .ok_or_else(Failure::no_such_path),
        )
    };
    let steps: Vec<&str> = path.split('/').filter(|s| !s.is_empty()).collect();
    server.store.with(|state| match steps.as_slice() {
        ["version"] => ok(discovery::version()),
        ["healthz" | "livez" | "readyz", ..] => Some(Ok("ok".into_response())),
        ["api"] if aggregated => discovered(discovery::aggregated(&state.registry, true)),
        ["apis"] if aggregated => discovered(discovery::aggregated(&state.registry, false)),
        ["api"] => ok(json!({ "kind": "APIVersions", "versions": ["v1"], "serverAddressByClientCIDRs": [] })),
        ["apis"] => ok(discovery::group_list(&state.registry)),
        ["api", version] => found(discovery::resource_list(&state.registry, "", version)),
        ["apis", group] => found(discovery::group(&state.registry, group)),
        ["apis", group, version] => found(discovery::resource_list(&state.registry, group, version)),
        ["openapi", "v3"] => ok(discovery::openapi_index(&state.registry)),
        ["openapi", "v3", "apis", group, version] => {
            found(discovery::openapi(&state.registry, group, version))
        }
        ["openapi", "v3", "api", version] => found(discovery::openapi(&state.registry, "", version)),
        ["openapi", ..] => Some(Err(Failure::no_such_path())),
        _ => None,
    })
}

fn header(headers: &HeaderMap, name: header::HeaderName) -> &str {
    headers
        .get(name)
        .and_then(|v| v.to_str().ok())
        .unwrap_or_default()
}

/// The first form of the Accept header that is served.
fn form(headers: &HeaderMap) -> Result<Form, Failure> {
    let accept = header(headers, header::ACCEPT);
    for item in accept.split(',').map(str::trim) {
        let mut parts = item.split(';').map(str::trim);
        let kind = parts.next().unwrap_or_default();
        let shape = parts.find_map(|p| p.strip_prefix("as="));
        match (kind, shape) {
            ("application/json" | "application/yaml", Some("Table")) => {
                return Ok(Form::Table("Metadata".to_owned()));
            }
            ("application/json", Some("PartialObjectMetadata" | "PartialObjectMetadataList")) => {
                return Ok(Form::Metadata);
            }
            ("application/json" | "application/*" | "*/*" | "", None) => return Ok(Form::Object),
            _ => {}
        }
    }
    Err(Failure::not_acceptable())
}

/// Reads a body, which may be JSON or YAML.
fn parse(bytes: &[u8]) -> Result<Value, Failure> {
    let mut value = parse_as_written(bytes)?;
    whole_numbers(&mut value);
    Ok(value)
}

/// Writes 10.0 as 10, like the real server's encoder, so that the two are the same value.
fn whole_numbers(value: &mut Value) {
    match value {
        Value::Object(fields) => fields.values_mut().for_each(whole_numbers),
        Value::Array(items) => items.iter_mut().for_each(whole_numbers),
        Value::Number(number) if number.is_f64() => {
            // Up to 2^53 every whole number has one float.
            let whole = number
                .as_f64()
                .filter(|f| f.fract() == 0.0 && f.abs() < 9_007_199_254_740_992.0);
            if let Some(whole) = whole {
                *value = json!(whole as i64);
            }
        }
        _ => {}
    }
}

fn parse_as_written(bytes: &[u8]) -> Result<Value, Failure> {
    if let Ok(value) = serde_json::from_slice(bytes) {
        return Ok(value);
    }
    // `kubectl create deployment` and its like send protobuf (apimachinery, runtime/serializer/protobuf).
    if bytes.starts_with(b"k8s\0") {
        return Err(Failure::unsupported_media_type(
            "application/json, application/yaml (this small server does not read protobuf: \
             add `--dry-run=client -o yaml | kubectl apply -f -`)",
        ));
    }
    let text = std::str::from_utf8(bytes)
        .map_err(|e| Failure::bad_request(format!("the body is not UTF-8: {e}")))?;
    serde_saphyr::from_str(text)
        .map_err(|e| Failure::bad_request(format!("the body is neither JSON nor YAML: {e}")))
}

/// A request about objects.
struct Call<'a> {
    server: &'a Server,
    target: Target,
    query: Query,
    form: Form,
    /// Whether the client speaks of Events in the form of events.k8s.io.
    new_events: bool,
    headers: &'a HeaderMap,
}

/// What a patch does to an object.
type Edit<'a> = Box<dyn FnOnce(&mut Value) -> Result<(), Failure> + 'a>;

impl Call<'_> {
    fn with<T>(&self, work: impl FnOnce(&mut State) -> T) -> T {
        self.server.store.with(work)
    }

    fn body(&self, bytes: &[u8]) -> Result<Value, Failure> {
        let body = parse(bytes)?;
        Ok(if self.new_events {
            events::stored(body)
        } else {
            body
        })
    }

    fn write(&self) -> Write<'_> {
        let agent = header(self.headers, header::USER_AGENT);
        let agent = agent
            .split(['/', ' '])
            .next()
            .filter(|a| !a.is_empty())
            .unwrap_or("unknown");
        let manager = self.query.get("fieldManager").unwrap_or(agent).to_owned();
        Write {
            target: &self.target,
            query: &self.query,
            manager,
            now: Timestamp::now(),
        }
    }

    fn show(&self, code: StatusCode, object: &Value) -> Response {
        let shown = match &self.form {
            Form::Object if self.new_events => events::shown(object.clone()),
            Form::Object => object.clone(),
            Form::Metadata => table::partial(object),
            Form::Table(_) => self.table(
                std::slice::from_ref(object),
                &json!({ "resourceVersion": object["metadata"]["resourceVersion"] }),
            ),
        };
        (code, Json(shown)).into_response()
    }

    fn table(&self, objects: &[Value], meta: &Value) -> Value {
        table::table(
            &self.target.resource,
            objects,
            meta,
            self.query.get("includeObject").unwrap_or("Metadata"),
            Timestamp::now(),
        )
    }

    fn selection(&self) -> Result<Selection, Failure> {
        Selection::parse(
            &self.target.resource,
            self.query.get("labelSelector"),
            self.query.get("fieldSelector"),
        )
    }

    fn get(&self) -> Result<Response, Failure> {
        let key = self.target.key();
        let object = self.with(|s| s.get(&self.target.resource, &key).cloned());
        let object = object.ok_or_else(|| Failure::not_found(&self.target.resource, &key.1))?;
        if self.target.subresource.as_deref() == Some("scale") {
            return Ok(Json(scale(&object)).into_response());
        }
        Ok(self.show(StatusCode::OK, &object))
    }

    fn list(&self) -> Result<Response, Failure> {
        let selection = self.selection()?;
        let resource = &self.target.resource;
        let limit = self
            .query
            .get("limit")
            .and_then(|l| l.parse::<usize>().ok())
            .filter(|l| *l > 0)
            .unwrap_or(usize::MAX);
        // A continue token names the last object that was shown.
        let after: Option<Key> = self.query.get("continue").map(|t| {
            t.split_once('/').map_or((String::new(), t.to_owned()), |(n, o)| {
                (n.to_owned(), o.to_owned())
            })
        });
        let (mut found, version) = self.with(|s| {
            let version = s.version;
            let objects = s.table(resource).list(self.target.namespace.as_deref());
            let rest = objects.filter(|(key, _)| after.as_ref().is_none_or(|after| *key > after));
            let found: Vec<(Key, Arc<Value>)> = rest
                .filter(|(_, o)| selection.matches(o))
                .take(limit.saturating_add(1))
                .map(|(k, o)| (k.clone(), o.clone()))
                .collect();
            (found, version)
        });
        let mut meta = json!({ "resourceVersion": version.to_string() });
        if found.len() > limit {
            found.truncate(limit);
            if let Some(((namespace, name), _)) = found.last() {
                meta["continue"] = json!(format!("{namespace}/{name}"));
            }
        }
        let mut objects: Vec<Value> = found.iter().map(|(_, o)| Value::clone(o)).collect();
        if self.new_events {
            objects = objects.into_iter().map(events::shown).collect();
        }
        let list = match &self.form {
            Form::Table(_) => self.table(&objects, &meta),
            Form::Metadata => {
                let items: Vec<Value> = objects.iter().map(table::partial).collect();
                json!({ "kind": "PartialObjectMetadataList", "apiVersion": "meta.k8s.io/v1", "metadata": meta, "items": items })
            }
            Form::Object => {
                json!({ "kind": format!("{}List", resource.kind), "apiVersion": resource.api_version(), "metadata": meta, "items": objects })
            }
        };
        Ok(Json(list).into_response())
    }

    fn watch(&self) -> Result<Response, Failure> {
        let selection = self.selection()?;
        let asked = self.query.resource_version()?;
        let send_initial = self.query.flag("sendInitialEvents");
        let (initial, from) = self.with(|s| {
            let version = s.version;
            if asked > 0 && !send_initial {
                return (Vec::new(), asked);
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
            from,
            initial,
            mark_initial_end: send_initial,
            timeout: self
                .query
                .get("timeoutSeconds")
                .and_then(|t| t.parse().ok())
                .map(Duration::from_secs),
            epoch: self.server.epoch.clone(),
        }
        .body();
        Ok(([(header::CONTENT_TYPE, "application/json")], body).into_response())
    }

    fn create(&self, bytes: &[u8]) -> Result<Response, Failure> {
        let object = self.body(bytes)?;
        let mut target = self.target.clone();
        if target.resource.namespaced && target.namespace.is_none() {
            target.namespace = Some(
                object["metadata"]["namespace"]
                    .as_str()
                    .unwrap_or("default")
                    .to_owned(),
            );
        }
        let write = Write {
            target: &target,
            ..self.write()
        };
        let object = self.with(|s| write.create(s, object))?;
        Ok(self.show(StatusCode::CREATED, &object))
    }

    fn update(&self, bytes: &[u8]) -> Result<Response, Failure> {
        let object = self.body(bytes)?;
        if self.target.subresource.as_deref() == Some("scale") {
            return self.rescale(|scale| {
                *scale = object;
                Ok(())
            });
        }
        let object = self.with(|s| self.write().update(s, object))?;
        Ok(self.show(StatusCode::OK, &object))
    }

    fn patch(&self, bytes: &[u8]) -> Result<Response, Failure> {
        let kind = header(self.headers, header::CONTENT_TYPE)
            .split(';')
            .next()
            .unwrap_or_default()
            .trim();
        let patch = self.body(bytes)?;
        let resource = &self.target.resource;
        let json_patch = || -> Result<json_patch::Patch, Failure> {
            serde_json::from_value(patch.clone())
                .map_err(|e| Failure::bad_request(format!("not a JSON patch: {e}")))
        };
        let change: Edit<'_> = match kind {
            "application/json-patch+json" => {
                let patch = json_patch()?;
                Box::new(move |o| {
                    json_patch::patch(o, &patch)
                        .map_err(|e| Failure::bad_request(format!("the JSON patch does not apply: {e}")))
                })
            }
            "application/merge-patch+json" => Box::new(|o| {
                json_patch::merge(o, &patch);
                Ok(())
            }),
            "application/strategic-merge-patch+json" if resource.custom.is_none() => Box::new(|o| {
                strategic::apply(resource, o, &patch);
                Ok(())
            }),
            "application/apply-patch+yaml" | "application/apply-patch+json" => {
                if self.query.get("fieldManager").is_none() {
                    return Err(Failure::bad_request(
                        "PatchOptions.meta.k8s.io \"\" is invalid: fieldManager: Required value: is required for apply patch",
                    ));
                }
                let (object, created) = self.with(|s| self.write().apply(s, patch))?;
                return Ok(self.show(
                    if created {
                        StatusCode::CREATED
                    } else {
                        StatusCode::OK
                    },
                    &object,
                ));
            }
            _ => {
                return Err(Failure::unsupported_media_type(
                    "application/json-patch+json, application/merge-patch+json, application/apply-patch+yaml",
                ));
            }
        };
        if self.target.subresource.as_deref() == Some("scale") {
            return self.rescale(change);
        }
        let object = self.with(|s| self.write().patch(s, change))?;
        Ok(self.show(StatusCode::OK, &object))
    }

    /// Changes the scale, which is a view of spec.replicas.
    fn rescale(&self, change: impl FnOnce(&mut Value) -> Result<(), Failure>) -> Result<Response, Failure> {
        let target = Target {
            subresource: None,
            ..self.target.clone()
        };
        let write = Write {
            target: &target,
            ..self.write()
        };
        let object = self.with(|s| {
            write.patch(s, |object| {
                let mut scale = scale(object);
                change(&mut scale)?;
                object["spec"]["replicas"] = scale["spec"]["replicas"].clone();
                Ok(())
            })
        })?;
        Ok(Json(scale(&object)).into_response())
    }

    /// Puts a Pod on a node.
    fn bind(&self, bytes: &[u8]) -> Result<Response, Failure> {
        let node = self.body(bytes)?["target"]["name"].clone();
        let target = Target {
            subresource: None,
            ..self.target.clone()
        };
        let write = Write {
            target: &target,
            ..self.write()
        };
        self.with(|s| {
            write.patch(s, |pod| {
                if pod["spec"]["nodeName"].is_string() {
                    let name = target.name.as_deref().unwrap_or_default();
                    return Err(Failure::conflict(
                        &target.resource,
                        name,
                        "the pod is already assigned to a node",
                    ));
                }
                pod["spec"]["nodeName"] = node;
                Ok(())
            })
        })?;
        let done =
            json!({ "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "code": 201 });
        Ok((StatusCode::CREATED, Json(done)).into_response())
    }

    fn delete(&self, bytes: &[u8]) -> Result<Response, Failure> {
        let options = if bytes.is_empty() {
            Value::Null
        } else {
            self.body(bytes)?
        };
        let object =
            self.with(|s| delete::delete(s, &self.target, &self.query, &options, Timestamp::now()))?;
        Ok(self.show(StatusCode::OK, &object))
    }

    fn delete_all(&self, bytes: &[u8]) -> Result<Response, Failure> {
        let selection = self.selection()?;
        let options = if bytes.is_empty() {
            Value::Null
        } else {
            self.body(bytes)?
        };
        let resource = &self.target.resource;
        self.with(|s| {
            let listed = s.table(resource).list(self.target.namespace.as_deref());
            let keys: Vec<Key> = listed
                .filter(|(_, o)| selection.matches(o))
                .map(|(k, _)| k.clone())
                .collect();
            for (namespace, name) in keys {
                let namespace = Some(namespace).filter(|n| !n.is_empty());
                let target = Target {
                    resource: resource.clone(),
                    namespace,
                    name: Some(name),
                    subresource: None,
                };
                // One that has gone with another is no failure.
                let _ = delete::delete(s, &target, &self.query, &options, Timestamp::now());
            }
        });
        Ok(
            Json(json!({ "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success" }))
                .into_response(),
        )
    }
}

/// An object as autoscaling/v1 Scale.
fn scale(object: &Value) -> Value {
    let labels = object["spec"]["selector"]["matchLabels"].as_object();
    let selector: Vec<String> = labels
        .into_iter()
        .flatten()
        .map(|(k, v)| format!("{k}={}", v.as_str().unwrap_or_default()))
        .collect();
    let meta = &object["metadata"];
    json!({
        "kind": "Scale", "apiVersion": "autoscaling/v1",
        "metadata": { "name": meta["name"], "namespace": meta["namespace"], "uid": meta["uid"],
            "resourceVersion": meta["resourceVersion"], "creationTimestamp": meta["creationTimestamp"] },
        "spec": { "replicas": object["spec"]["replicas"].as_i64().unwrap_or(0) },
        "status": { "replicas": object["status"]["replicas"].as_i64().unwrap_or(0), "selector": selector.join(",") },
    })
}
