//! How diagnoses are named and selected; what is common to both commands.

use super::*;

#[test]
fn a_name_may_have_the_kind_before_it() {
    for typed in [
        "web.v2",
        "svcdiag/web.v2",
        "servicediagnosis/web.v2",
        "servicediagnoses/web.v2",
        "servicediagnosis.svcdiag.dev/web.v2",
    ] {
        assert_eq!(diagnosis_name(typed).as_deref(), Ok("web.v2"), "{typed}");
    }
    assert_eq!(diagnosis_name(&full_name("web")).as_deref(), Ok("web"));
    let pod = diagnosis_name("pod/web").unwrap_err();
    assert!(pod.contains("use NAME or svcdiag/NAME"), "{pod}");
    for typed in ["", "svcdiag/", "Web", "web/a/b"] {
        assert!(diagnosis_name(typed).is_err(), "{typed}");
    }
}

#[test]
fn a_selection_is_described_with_its_place_and_labels() {
    let of = |namespace, labels| Selection { namespace, labels }.describe();
    assert_eq!(of(Some("shop"), None), "namespace shop");
    assert_eq!(
        of(None, Some("app in (a,b)")),
        "any namespace with labels app in (a,b)"
    );
}
