use super::*;

/// The whole value of a document.
fn whole(document: Document<'_>) -> Result<Value, String> {
    let Content { mut head, items } = document.content?;
    if let Some(items) = items {
        let items: Result<Vec<Value>, String> = items.into_iter().map(Item::parse).collect();
        head["items"] = items?.into();
    }
    Ok(head)
}

fn parse_all(text: &str) -> Vec<(String, Result<Value, String>)> {
    let document = |d: Document<'_>| (d.place.clone(), whole(d));
    of(text).map(document).collect()
}

#[track_caller]
fn only(text: &str) -> Result<Value, String> {
    let mut all = parse_all(text);
    assert_eq!((all.len(), all[0].0.as_str()), (1, ""));
    all.remove(0).1
}

#[test]
fn a_broken_document_is_reported_with_its_line_and_hides_no_other() {
    let found = parse_all("# comment\n---\na: 1\n---\nb: [1\nc: 2\n---\n\n---\nd: 4\n");
    assert_eq!(found.len(), 3);
    assert_eq!(found[0].1.as_ref().unwrap()["a"], 1);
    let why = found[1].1.as_ref().unwrap_err();
    assert!(why.contains("line 5") || why.contains("line 6"), "{why}");
    assert_eq!(found[2].1.as_ref().unwrap()["d"], 4);
    assert_eq!(found[2].0, "document 3 (line 9)");
}

#[test]
fn json_may_have_several_objects_and_be_cut_short() {
    let found = parse_all("{\"a\": 1}\n{\"b\": 2}\n{\"c\":\n");
    assert_eq!(found.len(), 3);
    assert_eq!(found[1].0, "object 2");
    let why = found[2].1.as_ref().unwrap_err();
    assert!(why.contains("line 4") || why.contains("line 3"), "{why}");
}

#[test]
fn aliases_do_not_blow_up() {
    let mut text = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n".to_owned();
    for n in 1..12 {
        let of = format!("*a{}", n - 1);
        let line = format!("a{n}: &a{n} [{}]\n", [of.as_str(); 10].join(", "));
        text.push_str(&line);
    }
    assert!(only(&text).is_err());
}

/// What a list is that is read item by item.
fn is_divided(text: &str) -> bool {
    let document = of(text).next().unwrap();
    let items = document.content.unwrap().items.unwrap();
    items.iter().all(|item| !matches!(item, Item::Parsed(_)))
}

const LISTS: [&str; 9] = [
    // As kubectl writes it.
    "apiVersion: v1\nitems:\n- a: |\n    - x\n\n    items:\n  b:\n  - 1\n- a: \"- y\"\n  b:\n  # comment\n  - c: 2\nkind: List\nmetadata:\n  x: y\n",
    // The items deeper, and last.
    "---\nkind: PodList\nitems:\n  - a: 1\n    b: [\n      2]\n\n  -\n    c: 3\n",
    "# comment\nitems: \r\n# another\n-\r\n  a: 1\r\n- b\r\nkind: List\r\n",
    "items:\n- a: 1\n- b: 2",
    // Dashes before a tab and before nothing.
    "items:\n- a\n-\tb\n-",
    "items:\n- - 1\n  - 2\n- - 3\n",
    "items:\n- >-\n  folded\n\n  text\n# between\n- x\n\n",
    "{\"kind\": \"List\", \"items\": [{\"a\": 1}, [2], null], \"metadata\": {\"x\": \"y\"}, \"apiVersion\": \"v1\"}",
    "{\"items\": [], \"kind\": null}",
];

#[test]
fn a_list_that_is_divided_says_what_it_says_as_a_whole() {
    for text in LISTS {
        let mut expected: Value = serde_saphyr::from_str(text).unwrap();
        for field in ["kind", "apiVersion", "metadata"] {
            // JSON's are there, if empty.
            if text.starts_with('{') && expected[field].is_null() {
                expected[field] = Value::Null;
            }
        }
        assert_eq!(only(text).as_ref(), Ok(&expected), "{text}");
        assert!(is_divided(text), "{text}");
    }
}

#[test]
fn what_is_no_list_in_block_style_is_read_as_a_whole() {
    for text in [
        "items: []\nkind: List\n",
        "items: [{a: 1}]\n",
        "items:\n",
        "  items:\n  - a\n",
        "data:\n  items:\n  - a\n",
    ] {
        let expected: Value = serde_saphyr::from_str(text).unwrap();
        assert_eq!(only(text), Ok(expected), "{text}");
    }
}

#[test]
fn a_broken_item_is_reported_with_its_line_and_hides_no_other() {
    let text = "items:\n- a: 1\n- b: [1\n- c: 3\nkind: List\n";
    let content = of(text).next().unwrap().content.unwrap();
    assert_eq!(content.head["kind"], "List");
    let mut items = content.items.unwrap().into_iter().map(Item::parse);
    assert_eq!(items.next().unwrap().unwrap()["a"], 1);
    let why = items.next().unwrap().unwrap_err();
    assert!(why.contains("line 3") || why.contains("line 4"), "{why}");
    assert_eq!(items.next().unwrap().unwrap()["c"], 3);
    // What is behind the items.
    let why = only("items:\n- a: 1\n- b: 2\nkind: [\n").unwrap_err();
    assert!(why.contains("line 4") || why.contains("line 5"), "{why}");
}

#[test]
fn a_list_that_goes_on_in_another_way_is_not_taken_for_one_that_ends() {
    for (text, line) in [
        ("items:\n  - a: 1\n- b: 2\nkind: List\n", 3),
        ("kind: List\nitems:\n- a: 1\n[b]\n", 4),
    ] {
        let why = only(text).unwrap_err();
        assert!(
            why.starts_with(&format!("not understood: line {line}: ")),
            "{why}"
        );
    }
    assert!(only("items:\n- a: 1\nitems:\n- b: 2\n").is_err());
}

#[test]
fn what_is_too_much_for_one_object_or_list_is_left_out() {
    let many = |item: &str| item.repeat(MAX_ITEMS + 1);
    for text in [
        format!("[{}[]]", "[],".repeat(1_000_000)),
        format!("{{\"items\": [{{\"a\": [{}[]]}}]}}", "[],".repeat(1_000_000)),
        format!("items: [{}]\n", many("{},")),
        format!("items:\n- a:\n{}", many("  - {}\n")),
    ] {
        let why = only(&text).err().unwrap_or_default();
        assert!(
            why.contains("left out: a single object") || why.contains("budget"),
            "{why}"
        );
    }
    for text in [
        format!("{{\"items\": [{}0]}}", many("0,")),
        format!("items:\n{}- 0\n", many("- 0\n")),
    ] {
        let why = only(&text).unwrap_err();
        assert_eq!(
            why,
            format!(
                "left out: a list of {} objects; at most 200000 are read",
                MAX_ITEMS + 2
            )
        );
    }
}

proptest::proptest! {
    #[test]
    fn any_text_is_read_without_a_panic(text in "\\PC*|(---\n|items:\n|- |a: |\\{|\\[|\\}|\"|&a |\\*a|\n| )*") {
        let _ = parse_all(&text);
    }

    #[test]
    fn any_list_of_values_is_divided_into_them(items in proptest::collection::vec("\\PC{0,9}(\n\\PC{0,9}){0,3}", 1..5)) {
        let items: Vec<Value> = items.iter().map(|text| serde_json::json!({ "a": text, "b": [text, { "c": [] }] })).collect();
        let list = serde_json::json!({ "apiVersion": "v1", "items": items, "kind": "List", "metadata": {} });
        let yaml = serde_saphyr::to_string(&list).unwrap();
        for text in [yaml, list.to_string()] {
            proptest::prop_assert!(is_divided(&text), "{}", text);
            proptest::prop_assert_eq!(only(&text), Ok(list.clone()), "{}", text);
        }
    }
}
