//! Who wrote what: the managers of an object's fields, as a write leaves them.

use serde_json::{Value, json};

use super::{
    edit::{remove, seconds},
    fields::Fields,
    write::Write,
};

impl Write<'_> {
    /// The part of an object that a write of this subresource is about.
    pub(super) fn own_part(&self, object: &Value) -> Value {
        match object["status"].clone() {
            Value::Null if self.of_status() => json!({}),
            status if self.of_status() => json!({ "status": status }),
            _ => {
                let mut part = object.clone();
                if self.resource().status {
                    remove(&mut part, "status");
                }
                part
            }
        }
    }

    /// Who owns what: an update's manager what it has `written`; apply has said so already.
    pub(super) fn record_managers(&self, object: &mut Value, written: Option<&Fields>) {
        let all = Fields::all(self.resource(), object);
        let mut entries = object["metadata"]["managedFields"]
            .as_array()
            .cloned()
            .unwrap_or_default();
        if let Some(written) = written {
            let subresource = self.target.subresource.as_deref();
            let is_me = |m: &Value| {
                m["manager"] == self.manager
                    && m["operation"] == "Update"
                    && m["subresource"].as_str() == subresource
            };
            let mut mine = written.clone();
            for entry in &mut entries {
                let mut theirs = Fields::from_v1(&entry["fieldsV1"]);
                if is_me(entry) {
                    mine.add(&theirs);
                } else {
                    theirs.remove(written);
                    entry["fieldsV1"] = theirs.to_v1();
                }
            }
            entries.retain(|m| !is_me(m));
            entries.push(self.entry("Update", &mine));
        }
        entries.retain_mut(|entry| {
            let mut owned = Fields::from_v1(&entry["fieldsV1"]);
            owned.retain_in(&all);
            entry["fieldsV1"] = owned.to_v1();
            !owned.is_empty()
        });
        object["metadata"]["managedFields"] = Value::Array(entries);
    }

    pub(super) fn entry(&self, operation: &str, fields: &Fields) -> Value {
        let mut entry = json!({
            "manager": self.manager, "operation": operation, "apiVersion": self.resource().api_version(),
            "time": seconds(self.now), "fieldsType": "FieldsV1", "fieldsV1": fields.to_v1(),
        });
        if let Some(subresource) = &self.target.subresource {
            entry["subresource"] = json!(subresource);
        }
        entry
    }
}
