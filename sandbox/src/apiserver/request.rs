//! A request's path and query, parsed once.

use std::{collections::BTreeMap, sync::Arc};

use super::{
    resources::{Registry, Resource},
    status::Failure,
};

/// What a path under /api or /apis names.
#[derive(Clone, Debug)]
pub(crate) struct Target {
    pub resource: Arc<Resource>,
    pub namespace: Option<String>,
    pub name: Option<String>,
    /// status or scale.
    pub subresource: Option<String>,
}

impl Target {
    /// Parses `/api/v1/...` and `/apis/GROUP/VERSION/...`; `None` if nothing of that name is served.
    pub(crate) fn parse(registry: &Registry, path: &str) -> Option<Self> {
        let steps: Vec<&str> = path.split('/').filter(|s| !s.is_empty()).collect();
        let (group, version, rest) = match steps.as_slice() {
            ["api", version, rest @ ..] => ("", *version, rest),
            ["apis", group, version, rest @ ..] => (*group, *version, rest),
            _ => return None,
        };
        let (namespace, plural, rest) = match rest {
            // /namespaces/NAME and its subresources are about the Namespace itself.
            ["namespaces", name, plural, rest @ ..] if !matches!(*plural, "status" | "finalize") => {
                (Some((*name).to_owned()), *plural, rest)
            }
            [plural, rest @ ..] => (None, *plural, rest),
            [] => return None,
        };
        let resource = registry.get(group, version, plural)?.clone();
        let text = |s: Option<&&str>| s.map(|s| (*s).to_owned());
        let (name, subresource) = (text(rest.first()), text(rest.get(1)));
        let served = match subresource.as_deref() {
            None => true,
            Some("status") => resource.status,
            Some("scale") => resource.scale,
            Some("finalize") => resource.plural == "namespaces",
            Some(_) => false,
        };
        let scoped = resource.namespaced || namespace.is_none();
        (served && scoped && rest.len() <= 2).then_some(Self {
            resource,
            namespace,
            name,
            subresource,
        })
    }

    /// Key of the named object in the store.
    pub(crate) fn key(&self) -> (String, String) {
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

    pub(crate) fn is_dry_run(&self) -> bool {
        self.get("dryRun") == Some("All")
    }

    /// The version a watch starts from; 0 for "any".
    pub(crate) fn resource_version(&self) -> Result<u64, Failure> {
        let text = self.get("resourceVersion").unwrap_or("0");
        text.parse()
            .map_err(|_| Failure::bad_request(format!("invalid resource version: {text:?}")))
    }
}
