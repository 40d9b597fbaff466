//! The macros behind the enums of the API and the table of stages.

/// Declares an enum whose variants are the strings of the wire format, with their documentation. A variant may have
/// another spelling there: `Tcp = "TCP"`.
macro_rules! string_enum {
    (@spelled $variant:ident) => { stringify!($variant) };
    (@spelled $variant:ident $spelled:literal) => { $spelled };
    ($(#[$meta:meta])* $name:ident { $($(#[doc = $doc:expr])+ $variant:ident $(= $spelled:literal)?,)+ }) => {
        $(#[$meta])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize)]
        pub enum $name { $($(#[doc = $doc])+ $(#[serde(rename = $spelled)])? $variant,)+ }

        impl $name {
            /// Every value, in the order of declaration.
            pub const ALL: &'static [Self] = &[$(Self::$variant),+];

            /// The value as it stands on the wire.
            #[must_use]
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$variant => string_enum!(@spelled $variant $($spelled)?)),+ }
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
            type Err = $crate::UnknownName;
            fn from_str(s: &str) -> Result<Self, Self::Err> {
                Self::ALL.iter().copied().find(|v| v.as_str() == s).ok_or_else(|| $crate::UnknownName {
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

/// Declares the stages of the decision tree with their reasons, and what follows from them: the types of conditions,
/// the reasons and the table `STAGES`.
///
/// A reason with a text belongs to the stage where it stands, and the text says when it is given. One without is
/// shared, and described under `reasons`.
macro_rules! stages {
    (
        $(
            #[doc = $question:literal]
            $stage:ident decided by $decided_by:ident {
                page: $section:literal,
                needs: [$($need:ident),*],
                yes: [$($yes:ident $(= $yes_when:literal)?,)*],
                unknown: [$($unknown:ident $(= $unknown_when:literal)?,)*],
                no: [$($no:ident $(= $no_when:literal)?,)*],
            }
        )+
        summaries { $(#[doc = $sums_up:literal] $summary:ident,)+ }
        reasons { $(#[doc = $when:literal] $reason:ident,)+ }
    ) => {
        string_enum! {
            /// Type of a condition in a ServiceDiagnosis' status.
            ///
            /// The stages stand first, in causal order: what stands earlier explains what stands later.
            /// For every stage True is good.
            ConditionType {
                $(#[doc = $question] $stage,)+
                $(#[doc = $sums_up] $summary,)+
            }
        }

        string_enum! {
            /// Reason of a condition. The documentation of a value names the condition it belongs to and
            /// the status it goes with.
            Reason {
                $(
                    $($(#[doc = concat!(" ", stringify!($stage), " is True: ", $yes_when)] $yes,)?)*
                    $($(#[doc = concat!(" ", stringify!($stage), " is Unknown: ", $unknown_when)] $unknown,)?)*
                    $($(#[doc = concat!(" ", stringify!($stage), " is False: ", $no_when)] $no,)?)*
                )+
                $(#[doc = $when] $reason,)+
            }
        }

        /// The stages, in causal order.
        pub const STAGES: &[Stage] = &[$(
            Stage {
                condition: ConditionType::$stage,
                is_decided_by_objects: is_objects!($decided_by),
                needs: &[$(ConditionType::$need),*],
                successes: &[$(Reason::$yes),*],
                unknowns: &[$(Reason::$unknown),*],
                faults: &[$(Reason::$no),*],
                section: $section,
            },
        )+];
    };
}
pub(crate) use stages;

/// Whether it is objects of the API that decide a stage, and not what agents see.
macro_rules! is_objects {
    (objects) => {
        true
    };
    (agents) => {
        false
    };
}
pub(crate) use is_objects;
