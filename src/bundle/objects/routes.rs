//! Who sends to a Service from outside: Ingresses, and routes of the Gateway API.

use serde::Serialize;
use serde_json::Value;

use super::identity::text;

/// A port of a Service that an object sends to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(in crate::bundle) struct Backend {
    /// Kind and name of the object.
    pub by: String,
    pub namespace: String,
    pub service: String,
    /// Its name or number.
    pub port: String,
}

/// Most backends of one object; more of them say nothing new.
const MAX_BACKENDS: usize = 256;

/// The backends that an object names.
pub(super) fn backends(object: &Value) -> Vec<Backend> {
    let list = |value: &Value, pointer: &str| {
        value
            .pointer(pointer)
            .and_then(Value::as_array)
            .cloned()
            .unwrap_or_default()
    };
    let namespace = text(object, "/metadata/namespace");
    let by = format!("{} {}", text(object, "/kind"), text(object, "/metadata/name"));
    let rules = list(object, "/spec/rules");
    let of_paths = rules
        .iter()
        .flat_map(|rule| list(rule, "/http/paths"))
        .map(|path| path["backend"].clone());
    let of_routes = rules.iter().flat_map(|rule| list(rule, "/backendRefs"));
    let whole = ["/spec/defaultBackend", "/spec/backend"]
        .iter()
        .filter_map(|at| object.pointer(at).cloned());
    let all = of_paths.chain(of_routes).chain(whole).take(MAX_BACKENDS);
    all.filter_map(|backend| backend_of(&backend, &by, namespace))
        .collect()
}

fn backend_of(backend: &Value, by: &str, namespace: &str) -> Option<Backend> {
    let word = |pointer: &str| match backend.pointer(pointer)? {
        Value::String(text) if !text.is_empty() => Some(text.clone()),
        Value::Number(number) => Some(number.to_string()),
        _ => None,
    };
    let of_route = backend.get("service").is_none() && backend.get("serviceName").is_none();
    if of_route && word("/kind").is_some_and(|kind| kind != "Service") {
        return None;
    }
    let service = word("/service/name")
        .or_else(|| word("/serviceName"))
        .or_else(|| word("/name"))?;
    let port = [
        "/service/port/number",
        "/service/port/name",
        "/servicePort",
        "/port",
    ];
    Some(Backend {
        by: by.to_owned(),
        namespace: word("/namespace")
            .filter(|_| of_route)
            .unwrap_or_else(|| namespace.to_owned()),
        service,
        port: port.iter().find_map(|pointer| word(pointer))?,
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn told(object: &Value) -> Vec<String> {
        let all = backends(object).into_iter();
        all.map(|b| format!("{}: {}/{}:{}", b.by, b.namespace, b.service, b.port))
            .collect()
    }

    #[test]
    fn ingresses_and_routes_name_ports_of_services() {
        let named = |kind: &str, spec: Value| json!({"kind": kind, "metadata": {"name": "a", "namespace": "shop"}, "spec": spec});
        let path = json!({"backend": {"service": {"name": "web", "port": {"number": 1337}}}});
        let default = json!({"service": {"name": "web", "port": {"name": "http"}}});
        let ingress = named(
            "Ingress",
            json!({"rules": [{"http": {"paths": [path]}}], "defaultBackend": default}),
        );
        assert_eq!(
            told(&ingress),
            ["Ingress a: shop/web:1337", "Ingress a: shop/web:http"]
        );
        let old = named(
            "Ingress",
            json!({"backend": {"serviceName": "web", "servicePort": 80}}),
        );
        assert_eq!(told(&old), ["Ingress a: shop/web:80"]);
        let refs = json!([{"name": "web", "port": 80}, {"name": "b", "port": 1, "kind": "Bucket"}, {"name": "web", "port": 8, "namespace": "x"}]);
        let route = named("HTTPRoute", json!({"rules": [{"backendRefs": refs}]}));
        assert_eq!(told(&route), ["HTTPRoute a: shop/web:80", "HTTPRoute a: x/web:8"]);
        assert_eq!(told(&named("Ingress", json!({"rules": 1}))), Vec::<String>::new());
    }
}
