//! What is served: discovery in its old and its aggregated form, and OpenAPI for custom kinds.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};
use sha2::Digest;

use super::resources::{Registry, Resource};

/// Version that the server says it has.
const VERSION: (&str, &str) = ("1", "36");

/// `/version`.
pub(crate) fn version() -> Value {
    let (major, minor) = VERSION;
    json!({ "major": major, "minor": minor, "gitVersion": format!("v{major}.{minor}.0+sandbox"), "platform": "linux/amd64",
        "gitCommit": "", "gitTreeState": "", "buildDate": "", "goVersion": "", "compiler": "" })
}

/// Kinds by group, each group with its one version.
fn groups(registry: &Registry) -> BTreeMap<(&str, &str), Vec<&Resource>> {
    let mut groups: BTreeMap<(&str, &str), Vec<&Resource>> = BTreeMap::new();
    for resource in registry.all() {
        groups
            .entry((&resource.group, &resource.version))
            .or_default()
            .push(resource);
    }
    groups.entry(("authorization.k8s.io", "v1")).or_default();
    groups
}

/// `/`: what there is to be asked for.
pub(crate) fn paths(registry: &Registry) -> Value {
    let mut paths: Vec<String> = [
        "/api",
        "/api/v1",
        "/apis",
        "/healthz",
        "/livez",
        "/openapi/v3",
        "/readyz",
        "/version",
    ]
    .map(str::to_owned)
    .to_vec();
    for (group, version) in groups(registry).keys().filter(|(group, _)| !group.is_empty()) {
        paths.extend([format!("/apis/{group}"), format!("/apis/{group}/{version}")]);
    }
    paths.sort();
    json!({ "paths": paths })
}

/// `/apis`.
pub(crate) fn group_list(registry: &Registry) -> Value {
    let group = |(group, version): &(&str, &str)| {
        let version = json!({ "groupVersion": format!("{group}/{version}"), "version": version });
        json!({ "name": group, "versions": [version], "preferredVersion": version })
    };
    let groups: Vec<Value> = groups(registry)
        .keys()
        .filter(|(g, _)| !g.is_empty())
        .map(group)
        .collect();
    json!({ "kind": "APIGroupList", "apiVersion": "v1", "groups": groups })
}

/// `/apis/GROUP`.
pub(crate) fn group(registry: &Registry, name: &str) -> Option<Value> {
    let list = group_list(registry);
    let mut group = list["groups"]
        .as_array()?
        .iter()
        .find(|g| g["name"] == name)?
        .clone();
    group["kind"] = json!("APIGroup");
    group["apiVersion"] = json!("v1");
    Some(group)
}

/// `/api/v1` and `/apis/GROUP/VERSION`.
pub(crate) fn resource_list(registry: &Registry, group: &str, version: &str) -> Option<Value> {
    let groups = groups(registry);
    let resources = groups.get(&(group, version))?;
    let mut listed = Vec::new();
    for r in resources {
        listed.push(
            json!({ "name": r.plural, "singularName": r.singular, "namespaced": r.namespaced, "kind": r.kind,
            "verbs": Resource::VERBS, "shortNames": r.short_names, "categories": r.categories }),
        );
        for (name, kind) in subresources(r) {
            let mut entry = json!({ "name": format!("{}/{name}", r.plural), "singularName": "", "namespaced": r.namespaced,
                "kind": kind["kind"], "verbs": ["get", "patch", "update"] });
            // Only where they are others than the kind's own.
            if kind["group"] != r.group {
                entry["group"] = kind["group"].clone();
                entry["version"] = kind["version"].clone();
            }
            listed.push(entry);
        }
    }
    let group_version = if group.is_empty() {
        version.to_owned()
    } else {
        format!("{group}/{version}")
    };
    Some(
        json!({ "kind": "APIResourceList", "apiVersion": "v1", "groupVersion": group_version, "resources": listed }),
    )
}

fn subresources(r: &Resource) -> Vec<(&'static str, Value)> {
    let mut subresources = Vec::new();
    if r.status {
        subresources.push(("status", response_kind(r)));
    }
    if r.scale {
        subresources.push((
            "scale",
            json!({ "group": "autoscaling", "version": "v1", "kind": "Scale" }),
        ));
    }
    subresources
}

/// The kind that a path answers; that of the core has no version.
fn response_kind(r: &Resource) -> Value {
    let version = if r.group.is_empty() { "" } else { &r.version };
    json!({ "group": r.group, "version": version, "kind": r.kind })
}

/// `/api` and `/apis` as APIGroupDiscoveryList.
pub(crate) fn aggregated(registry: &Registry, core: bool) -> Value {
    let resource = |r: &&Resource| {
        let scope = if r.namespaced { "Namespaced" } else { "Cluster" };
        let kind = response_kind(r);
        let subresources: Vec<Value> = subresources(r)
            .into_iter()
            .map(|(name, kind)| json!({ "subresource": name, "responseKind": kind, "verbs": ["get", "patch", "update"] }))
            .collect();
        json!({ "resource": r.plural, "responseKind": kind, "scope": scope, "singularResource": r.singular,
            "shortNames": r.short_names, "categories": r.categories, "verbs": Resource::VERBS, "subresources": subresources })
    };
    let items: Vec<Value> = groups(registry)
        .iter()
        .filter(|((group, _), _)| group.is_empty() == core)
        .map(|((group, version), resources)| {
            let resources: Vec<Value> = resources.iter().map(resource).collect();
            json!({ "metadata": { "name": group, "creationTimestamp": null },
                "versions": [{ "version": version, "freshness": "Current", "resources": resources }] })
        })
        .collect();
    json!({ "kind": "APIGroupDiscoveryList", "apiVersion": "apidiscovery.k8s.io/v2", "metadata": {}, "items": items })
}

/// `/openapi/v3`: the documents, one for each group.
pub(crate) fn openapi_index(registry: &Registry) -> Value {
    let mut paths = Map::new();
    for (group, version) in groups(registry).keys() {
        let path = if group.is_empty() {
            format!("api/{version}")
        } else {
            format!("apis/{group}/{version}")
        };
        let document = openapi(registry, group, version).unwrap_or_default().to_string();
        let hash = data_encoding::HEXUPPER.encode(&sha2::Sha256::digest(document));
        let url = format!("/openapi/v3/{path}?hash={hash}");
        paths.insert(path, json!({ "serverRelativeURL": url }));
    }
    json!({ "paths": paths })
}

/// The OpenAPI document of a group. It has the operations of all kinds, by which kubectl learns that
/// the server checks fields itself, and the schemas of custom kinds.
pub(crate) fn openapi(registry: &Registry, group: &str, version: &str) -> Option<Value> {
    let groups = groups(registry);
    let resources = groups.get(&(group, version))?;
    let (mut paths, mut schemas) = (Map::new(), Map::new());
    for r in resources {
        let gvk = json!({ "group": r.group, "version": r.version, "kind": r.kind });
        let schema = r.custom.as_ref().map(|custom| {
            let name = schema_name(r);
            schemas.insert(name.clone(), described(custom.schema().clone(), &gvk));
            json!({ "$ref": format!("#/components/schemas/{name}") })
        });
        let operation = |action: &str, parameters: &[&str]| {
            let body = json!({ "application/json": { "schema": schema.clone().unwrap_or_else(|| json!({ "type": "object" })) } });
            let parameters: Vec<Value> = parameters
                .iter()
                .map(|name| json!({ "name": name, "in": "query", "schema": { "type": "string" } }))
                .collect();
            json!({ "x-kubernetes-action": action, "x-kubernetes-group-version-kind": gvk, "parameters": parameters,
                "responses": { "200": { "description": "OK", "content": body } } })
        };
        let write = |action: &str| operation(action, &["dryRun", "fieldManager", "fieldValidation"]);
        let root = if group.is_empty() {
            format!("/api/{version}")
        } else {
            format!("/apis/{group}/{version}")
        };
        let scope = if r.namespaced {
            "/namespaces/{namespace}"
        } else {
            ""
        };
        let base = format!("{root}{scope}/{}", r.plural);
        let one = json!({ "get": operation("get", &[]), "put": write("put"), "patch": write("patch") });
        if r.namespaced {
            paths.insert(
                format!("{root}/{}", r.plural),
                json!({ "get": operation("list", &[]) }),
            );
        }
        if r.status {
            paths.insert(format!("{base}/{{name}}/status"), one.clone());
        }
        let mut object = one;
        object["delete"] = operation("delete", &["dryRun"]);
        paths.insert(format!("{base}/{{name}}"), object);
        let collection = json!({ "get": operation("list", &[]), "post": write("post"), "delete": operation("deletecollection", &[]) });
        paths.insert(base, collection);
    }
    let info = json!({ "title": "svcdiag sandbox", "version": "v1" });
    Some(json!({ "openapi": "3.0.0", "info": info, "paths": paths, "components": { "schemas": schemas } }))
}

/// `dev.svcdiag.v1alpha1.ServiceDiagnosis`.
fn schema_name(r: &Resource) -> String {
    let mut group: Vec<&str> = r.group.split('.').collect();
    group.reverse();
    format!("{}.{}.{}", group.join("."), r.version, r.kind)
}

/// A CRD's schema with the fields that every object has.
fn described(mut schema: Value, gvk: &Value) -> Value {
    let text = |description: &str| json!({ "type": "string", "description": description });
    schema["properties"]["apiVersion"] =
        text("APIVersion defines the versioned schema of this representation of an object.");
    schema["properties"]["kind"] =
        text("Kind is a string value representing the REST resource this object represents.");
    schema["properties"]["metadata"] =
        json!({ "type": "object", "description": "Standard object's metadata." });
    schema["x-kubernetes-group-version-kind"] = json!([gvk]);
    schema
}
