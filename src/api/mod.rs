//! The public API: group `svcdiag.dev`, version `v1alpha1`.
//!
//! A user writes a [`ServiceDiagnosis`]; the controller answers in its status, one condition
//! ([`ConditionType`]) per question of Kubernetes' "Debug Services" page, each with a [`Reason`].
//! A [`NodeProbe`] is what the controller asks of the agent of one node and what that agent saw.
//! `svcdiag crd` prints the manifests that are generated from these types.

mod bounds;
mod condition;
mod nodeprobe;
mod reason;
mod servicediagnosis;

use kube::CustomResourceExt;

pub use condition::{ConditionStatus, ConditionType};
pub use nodeprobe::{
    DiagnosisRef, NodeFacts, NodeProbe, NodeProbeSpec, NodeProbeStatus, ProbePod, SliceVersion,
};
pub use reason::Reason;
pub use servicediagnosis::{
    Clients, HttpProbe, HttpScheme, Impact, Nodes, Observation, PortRef, Probe, RootCause, ServiceDiagnosis,
    ServiceDiagnosisSpec, ServiceDiagnosisStatus, Summary,
};

/// API group of both kinds.
pub const GROUP: &str = "svcdiag.dev";

/// Field manager of every server-side apply that the controller makes.
pub const FIELD_MANAGER: &str = "svcdiag-controller";

/// Annotation of a Namespace that lends its Pods as clients to diagnoses of other Namespaces:
/// a comma-separated list of Namespace names.
pub const CLIENTS_FOR_ANNOTATION: &str = "svcdiag.dev/clients-for";

/// Label of a Namespace (`"true"`) whose Services each get a ServiceDiagnosis; annotation of a
/// Service (`"false"`) that opts it out.
pub const AUTO: &str = "svcdiag.dev/auto";

/// Both CRDs, in the order in which they are printed.
#[must_use]
pub fn crds() -> Vec<serde_json::Value> {
    [ServiceDiagnosis::crd(), NodeProbe::crd()]
        .iter()
        .map(|crd| {
            let mut manifest = serde_json::to_value(crd).unwrap_or_default();
            tidy(&mut manifest);
            manifest
        })
        .collect()
}

/// Makes generated schemas plain: Kubernetes knows no unsigned formats, whole numbers need no
/// fraction, and the line breaks of doc comments are not the reader's.
fn tidy(value: &mut serde_json::Value) {
    use serde_json::Value;
    match value {
        Value::Array(items) => items.iter_mut().for_each(tidy),
        Value::Object(fields) => {
            for (key, field) in fields {
                match (key.as_str(), &*field) {
                    ("format", Value::String(f)) if f == "uint32" => *field = "int32".into(),
                    ("description", Value::String(text)) => *field = text.replace('\n', " ").into(),
                    ("minimum" | "maximum", Value::Number(n)) => {
                        if let Some(n) = n.as_f64().filter(|n| n.fract() == 0.0) {
                            #[expect(clippy::cast_possible_truncation, reason = "bounds of our own, far from the limits of i64")]
                            let whole = n as i64;
                            *field = whole.into();
                        }
                    }
                    _ => tidy(field),
                }
            }
        }
        _ => {}
    }
}

/// Declares an enum whose variants are the strings of the wire format, with their documentation.
macro_rules! string_enum {
    ($(#[$meta:meta])* $name:ident { $($(#[doc = $doc:literal])+ $variant:ident,)+ }) => {
        $(#[$meta])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize)]
        pub enum $name { $($(#[doc = $doc])+ $variant,)+ }

        impl $name {
            /// Every value, in the order of declaration.
            pub const ALL: &'static [Self] = &[$(Self::$variant),+];

            /// The value as it stands on the wire.
            #[must_use]
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$variant => stringify!($variant)),+ }
            }

            /// What the value means: its documentation, in one line.
            #[must_use]
            pub fn meaning(self) -> &'static str {
                match self { $(Self::$variant => concat!($($doc),+).trim_ascii()),+ }
            }
        }

        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result { f.pad(self.as_str()) }
        }

        impl std::str::FromStr for $name {
            type Err = $crate::api::UnknownName;
            fn from_str(s: &str) -> Result<Self, Self::Err> {
                Self::ALL.iter().copied().find(|v| v.as_str() == s).ok_or_else(|| $crate::api::UnknownName {
                    kind: stringify!($name), name: s.to_owned(),
                })
            }
        }

        impl schemars::JsonSchema for $name {
            fn inline_schema() -> bool { true }
            fn schema_name() -> std::borrow::Cow<'static, str> { stringify!($name).into() }
            fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
                let names: Vec<&str> = Self::ALL.iter().map(|v| v.as_str()).collect();
                schemars::json_schema!({ "type": "string", "enum": names })
            }
        }
    };
}
pub(crate) use string_enum;

/// A string that is not one of an enum's values.
#[derive(Debug, thiserror::Error)]
#[error("{name:?} is not a {kind}")]
pub struct UnknownName {
    kind: &'static str,
    name: String,
}
