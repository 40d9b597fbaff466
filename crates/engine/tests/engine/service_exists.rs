//! Does the Service exist? Each fault, and beside it its lookalikes, of which nothing may be False.

use serde_json::json;
use svcdiag_api::{ConditionType as C, Reason as R};

use crate::{report::*, walkthrough::*};

#[test]
fn a01_the_service_does_not_exist() {
    api_fault("A01", C::ServiceExists, R::ServiceNotFound, |f| {
        f.service = None;
        f.slices.clear();
        f.other_services = ["hostname", "kubernetes"]
            .map(|name| other_service(name, json!({})))
            .into();
    });
}

#[test]
fn a02_the_service_exists_only_in_another_namespace() {
    api_fault("A02", C::ServiceExists, R::ServiceNotFound, |f| {
        f.service = None;
        f.slices.clear();
        f.namesakes = vec!["staging".into(), "prod".into()];
    });
}

#[test]
fn a02_same_name_in_both_namespaces() {
    api_lookalike(|f| f.namesakes = vec!["staging".into()]);
}
