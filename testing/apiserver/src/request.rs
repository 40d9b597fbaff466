//! A request's path and query, parsed once.

use std::{collections::BTreeMap, sync::Arc};

use super::{
    resources::{Registry, Resource},
    status::Failure,
    store::Key,
};

/// What a path under /api or /apis names.
#[derive(Clone, Debug)]
pub(crate) struct Target {
    pub resource: Arc<Resource>,
    /// The kind as the client calls it: Events have two forms, and are stored in one.
    pub asked: Arc<Resource>,
    pub namespace: Option<String>,
    pub name: Option<String>,
    /// status, scale, finalize or binding.
    pub subresource: Option<String>,
}

impl Target {
    /// Parses `/api/v1/...` and `/apis/GROUP/VERSION/...`.
    ///
    /// # Errors
    /// Built-in groups say in a Status that they lack a kind. Where no handler has the path the answer
    /// is plain text: this is how a real server says that a CRD is not installed.
    pub(crate) fn parse(registry: &Registry, path: &str) -> Result<Self, Failure> {
        let steps: Vec<&str> = path.split('/').filter(|s| !s.is_empty()).collect();
        let (group, version, rest) = match steps.as_slice() {
            ["api", version, rest @ ..] => ("", *version, rest),
            ["apis", group, version, rest @ ..] => (*group, *version, rest),
            _ => return Err(Failure::page_not_found()),
        };
        let missing = || {
            if registry.is_built_in(group) {
                Failure::no_such_path()
            } else {
                Failure::page_not_found()
            }
        };
        let (namespace, plural, rest) = match rest {
            // /namespaces/NAME and its subresources are about the Namespace itself.
            ["namespaces", name, plural, rest @ ..] if !matches!(*plural, "status" | "finalize") => {
                (Some((*name).to_owned()), *plural, rest)
            }
            [plural, rest @ ..] => (None, *plural, rest),
            [] => return Err(missing()),
        };
        let resource = registry.get(group, version, plural).ok_or_else(missing)?.clone();
        if rest.len() > 2 || namespace.is_some() && !resource.namespaced {
            return Err(missing());
        }
        let text = |s: Option<&&str>| s.map(|s| (*s).to_owned());
        let (name, subresource) = (text(rest.first()), text(rest.get(1)));
        let served = match subresource.as_deref() {
            None => true,
            Some("status") => resource.status,
            Some("scale") => resource.scale,
            Some("finalize") => resource.plural == "namespaces",
            Some("binding") => resource.plural == "pods",
            Some(_) => false,
        };
        match &name {
            Some(name) if !served && resource.custom.is_some() => Err(Failure::not_found(&resource, name)),
            _ if !served => Err(missing()),
            _ => Ok(Self {
                asked: resource.clone(),
                resource,
                namespace,
                name,
                subresource,
            }),
        }
    }

    /// An object in the store.
    pub(crate) fn of(resource: &Arc<Resource>, (namespace, name): Key) -> Self {
        Self {
            resource: resource.clone(),
            asked: resource.clone(),
            namespace: Some(namespace).filter(|n| !n.is_empty()),
            name: Some(name),
            subresource: None,
        }
    }

    /// The same object as a whole.
    pub(crate) fn without_subresource(&self) -> Self {
        Self {
            subresource: None,
            ..self.clone()
        }
    }

    /// The right that a request takes, as `patch nodeprobes.svcdiag.dev/status`.
    pub(crate) fn right(&self, verb: &str) -> String {
        let mut right = format!("{verb} {}", self.asked.plural);
        for (separator, part) in [(".", Some(&self.asked.group)), ("/", self.subresource.as_ref())] {
            if let Some(part) = part.filter(|part| !part.is_empty()) {
                right.push_str(separator);
                right.push_str(part);
            }
        }
        right
    }

    /// Key of the named object in the store.
    pub(crate) fn key(&self) -> Key {
        (
            self.namespace.clone().unwrap_or_default(),
            self.name.clone().unwrap_or_default(),
        )
    }
}

/// Parameters of a request.
#[derive(Clone, Debug, Default)]
pub(crate) struct Query(BTreeMap<String, String>);

impl Query {
    pub(crate) fn parse(query: Option<&str>) -> Self {
        let pairs = form_urlencoded::parse(query.unwrap_or_default().as_bytes());
        Self(pairs.into_owned().collect())
    }

    pub(crate) fn get(&self, name: &str) -> Option<&str> {
        self.0.get(name).map(String::as_str).filter(|v| !v.is_empty())
    }

    pub(crate) fn flag(&self, name: &str) -> bool {
        self.get(name).is_some_and(|v| v == "true" || v == "1")
    }

    /// Whether a flag was given at all.
    pub(crate) fn has(&self, name: &str) -> bool {
        self.get(name).is_some()
    }

    pub(crate) fn is_dry_run(&self) -> bool {
        self.get("dryRun") == Some("All")
    }
}
