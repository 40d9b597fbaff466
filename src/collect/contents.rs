//! The files of a bundle, from what was read.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::{extras::Extras, redact};
use crate::{
    bundle::{MANIFEST, Manifest},
    check::Gathered,
    inventory::written,
};

/// Objects by the plural of their kind.
pub(super) type Objects = BTreeMap<String, Vec<Value>>;

/// A file: its path in the bundle and its content.
pub(super) type File = (String, String);

/// All objects of the bundle. A kind that was listed is included even if it is empty: absence is evidence.
pub(super) fn objects(gathered: &Gathered, extras: &Extras) -> Objects {
    let listed = gathered.listed.iter().map(|l| (l.resource.clone(), Vec::new()));
    let mut objects: Objects = listed.collect();
    for (resource, object) in gathered.inventory.contents() {
        objects.entry(resource).or_default().push(object);
    }
    if let Some(diagnosis) = &gathered.diagnosis {
        objects.insert("servicediagnoses".to_owned(), vec![written(diagnosis)]);
    }
    if !extras.config_maps.is_empty() {
        objects.insert("configmaps".to_owned(), extras.config_maps.clone());
    }
    objects.values_mut().flatten().for_each(redact::object);
    objects
}

/// One file per kind, in JSON: unlike YAML, a truncated file is not valid. The manifest comes last, because it refers to the
/// others.
pub(super) fn files(objects: &Objects, manifest: &Manifest) -> Vec<File> {
    let file = |(resource, items): (&String, &Vec<Value>)| {
        let list = json!({ "apiVersion": "v1", "kind": "List", "items": items });
        (format!("objects/{resource}.json"), format!("{list:#}\n"))
    };
    let mut files: Vec<File> = objects.iter().map(file).collect();
    // The manifest has no keys that YAML cannot represent.
    let manifest = serde_saphyr::to_string(manifest).unwrap_or_default();
    files.push((MANIFEST.to_owned(), manifest));
    files
}

#[cfg(test)]
mod tests;
