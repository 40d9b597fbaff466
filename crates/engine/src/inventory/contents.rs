//! All that an Inventory holds, to be written to files.

use std::{collections::BTreeMap, sync::Arc};

use kube::Resource;
use serde::Serialize;
use serde_json::{Map, Value};

use super::{Inventory, Table};
use svcdiag_objects::{Object, trim_metadata};

impl Inventory {
    /// Every object as the API writes it, with the plural of its kind; those of a kind are together.
    /// The types hold nothing but what a verdict can depend on: no environment, no annotation but our
    /// own. Metadata is trimmed here, whatever it was when the object came in.
    pub fn contents(&self) -> impl Iterator<Item = (String, Value)> {
        let probes = self.probes.0.values().flat_map(BTreeMap::values);
        rows(&self.services)
            .chain(rows(&self.slices))
            .chain(rows(&self.pods))
            .chain(rows(&self.deployments))
            .chain(rows(&self.replica_sets))
            .chain(rows(&self.stateful_sets))
            .chain(rows(&self.policies))
            .chain(rows(&self.namespaces))
            .chain(rows(&self.nodes))
            .chain(rows(&self.leases))
            .chain(probes.filter_map(|p| p.object()).map(|p| row(&Arc::new(p))))
            .chain(self.events.iter().map(row))
    }
}

fn rows<K>(table: &Table<K>) -> impl Iterator<Item = (String, Value)>
where
    K: Resource<DynamicType = ()> + Serialize + Clone,
{
    table.0.values().flat_map(BTreeMap::values).map(row)
}

fn row<K>(object: &Arc<K>) -> (String, Value)
where
    K: Resource<DynamicType = ()> + Serialize + Clone,
{
    (K::plural(&()).into_owned(), written(object.as_ref()))
}

/// An object with its kind, and with no more metadata than a verdict can depend on.
pub fn written<K>(object: &K) -> Value
where
    K: Object + Resource<DynamicType = ()> + Serialize + Clone,
{
    let mut object = object.clone();
    trim_metadata(object.meta_mut());
    let mut fields = Map::new();
    fields.insert("apiVersion".to_owned(), K::api_version(&()).into());
    fields.insert("kind".to_owned(), K::kind(&()).into());
    // None of our types has keys that JSON has not.
    if let Ok(Value::Object(own)) = serde_json::to_value(&object) {
        fields.extend(own);
    }
    Value::Object(fields)
}
