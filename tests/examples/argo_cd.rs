//! The scripts for Argo CD, run by a Lua 5.1 with the libraries that Argo CD has: `table`, `package`, and of `os` only
//! the time.

use std::{
    collections::BTreeSet,
    path::{Path, PathBuf},
};

use mlua::{Lua, LuaOptions, StdLib, Table};
use serde_json::{Map, Value, json};
use svcdiag::api::REFRESH_ANNOTATION;

use super::{files, read, root, yaml};

const DIRECTORY: &str = "examples/argo-cd/resource_customizations/svcdiag.dev/ServiceDiagnosis";

fn at(path: &str) -> PathBuf {
    root(DIRECTORY).join(path)
}

/// What a script returns when it is run on an object.
fn run(script: &str, object: &Value) -> Value {
    let lua = Lua::new_with(
        StdLib::TABLE | StdLib::PACKAGE | StdLib::OS,
        LuaOptions::default(),
    )
    .unwrap();
    let globals = lua.globals();
    let all: Table = globals.get("os").unwrap();
    let harmless = lua.create_table().unwrap();
    for name in ["date", "time"] {
        let function: mlua::Value = all.get(name).unwrap();
        harmless.set(name, function).unwrap();
    }
    globals.set("os", &harmless).unwrap();
    let package: Table = globals.get("package").unwrap();
    let loaded: Table = package.get("loaded").unwrap();
    loaded.set("os", harmless).unwrap();
    globals.set("obj", to_lua(&lua, object)).unwrap();
    from_lua(lua.load(script).eval::<mlua::Value>().unwrap())
}

fn to_lua(lua: &Lua, value: &Value) -> mlua::Value {
    let table = || lua.create_table().unwrap();
    match value {
        Value::Null => mlua::Value::Nil,
        Value::Bool(it) => mlua::Value::Boolean(*it),
        // Argo CD's Lua has no other numbers either.
        Value::Number(it) => mlua::Value::Number(it.as_f64().unwrap()),
        Value::String(it) => mlua::Value::String(lua.create_string(it).unwrap()),
        Value::Array(items) => {
            let list = table();
            for item in items {
                list.push(to_lua(lua, item)).unwrap();
            }
            mlua::Value::Table(list)
        }
        Value::Object(fields) => {
            let map = table();
            for (key, field) in fields {
                map.set(key.as_str(), to_lua(lua, field)).unwrap();
            }
            mlua::Value::Table(map)
        }
    }
}

fn from_lua(value: mlua::Value) -> Value {
    match value {
        mlua::Value::Nil => Value::Null,
        mlua::Value::Boolean(it) => it.into(),
        mlua::Value::Integer(it) => it.into(),
        mlua::Value::Number(it) => it.into(),
        mlua::Value::String(it) => it.to_string_lossy().into(),
        mlua::Value::Table(table) if table.raw_len() > 0 => {
            let items = table.sequence_values::<mlua::Value>();
            items.map(|item| from_lua(item.unwrap())).collect()
        }
        mlua::Value::Table(table) => {
            let fields = table.pairs::<String, mlua::Value>().map(|pair| pair.unwrap());
            let fields: Map<String, Value> = fields.map(|(key, field)| (key, from_lua(field))).collect();
            fields.into()
        }
        other => panic!("{other:?} is nothing that Argo CD reads"),
    }
}

/// The paths of inputs in a list of tests.
fn inputs(tests: &Value) -> BTreeSet<PathBuf> {
    let tests = tests.as_array().unwrap().iter();
    tests
        .map(|test| test["inputPath"].as_str().unwrap().into())
        .collect()
}

/// All files of a directory of test data, as tests name them.
fn test_data(directory: &Path) -> BTreeSet<PathBuf> {
    let below = files(&directory.join("testdata"), "yaml").into_iter();
    below
        .map(|path| path.strip_prefix(directory).unwrap().to_owned())
        .collect()
}

#[test]
fn health_is_what_the_tests_in_the_layout_of_argo_cd_say() {
    let script = read(&at("health.lua"));
    let tests = &yaml(&at("health_test.yaml"))["tests"];
    let mut statuses = BTreeSet::new();
    for test in tests.as_array().unwrap() {
        let path = test["inputPath"].as_str().unwrap();
        assert_eq!(run(&script, &yaml(&at(path))), test["healthStatus"], "{path}");
        statuses.insert(test["healthStatus"]["status"].as_str().unwrap());
    }
    let expected = ["Degraded", "Healthy", "Progressing", "Suspended"];
    assert_eq!(statuses, BTreeSet::from(expected));
    assert_eq!(inputs(tests), test_data(&root(DIRECTORY)));
}

#[test]
fn the_refresh_action_sets_the_annotation_and_nothing_else() {
    let script = read(&at("actions/refresh/action.lua"));
    let tests = yaml(&at("actions/action_test.yaml"));
    for test in tests["actionTests"].as_array().unwrap() {
        assert_eq!(test["action"], "refresh");
        let input = |key: &str| yaml(&at("actions").join(test[key].as_str().unwrap()));
        let (before, mut expected) = (input("inputPath"), input("expectedOutputPath"));
        let after = run(&script, &before);
        let time = |object: &Value| object["metadata"]["annotations"][REFRESH_ANNOTATION].clone();
        assert_ne!(time(&after), time(&before));
        assert_eq!(
            time(&after).as_str().map(str::len),
            Some("2026-11-02T10:00:00Z".len())
        );
        expected["metadata"]["annotations"][REFRESH_ANNOTATION] = time(&after);
        assert_eq!(after, expected);
    }
}

#[test]
fn refresh_is_offered_unless_the_diagnosis_is_suspended() {
    let script = read(&at("actions/discovery.lua"));
    let tests = yaml(&at("actions/action_test.yaml"));
    for test in tests["discoveryTests"].as_array().unwrap() {
        let path = at("actions").join(test["inputPath"].as_str().unwrap());
        let found = run(&script, &yaml(&path));
        let expected = &test["result"][0];
        assert_eq!(expected["name"], "refresh");
        let is_disabled = expected["disabled"] == true;
        assert_eq!(found, json!({ "refresh": { "disabled": is_disabled } }));
    }
    let named: BTreeSet<PathBuf> = ["discoveryTests", "actionTests"]
        .iter()
        .flat_map(|key| inputs(&tests[*key]))
        .collect();
    assert_eq!(named, test_data(&at("actions")));
}

#[test]
fn the_config_map_has_the_same_scripts() {
    let data = &yaml(&root("config/argocd/argocd-cm.yaml"))["data"];
    let of = |what: &str| {
        let key = format!("resource.customizations.{what}.svcdiag.dev_ServiceDiagnosis");
        data[key].as_str().unwrap().to_owned()
    };
    assert_eq!(of("health"), read(&at("health.lua")));
    let actions: Value = serde_saphyr::from_str(&of("actions")).unwrap();
    let expected = json!({
        "discovery.lua": read(&at("actions/discovery.lua")),
        "definitions": [{ "name": "refresh", "action.lua": read(&at("actions/refresh/action.lua")) }],
    });
    assert_eq!(actions, expected);
}
