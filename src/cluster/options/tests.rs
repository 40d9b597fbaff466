//! What the options choose of a kubeconfig, and what is sent.

use std::io::Write;

use clap::Parser;

use super::*;

#[derive(Parser)]
struct Command {
    #[command(flatten)]
    cluster: ClusterOptions,
}

const KUBECONFIG: &str = "
apiVersion: v1
kind: Config
current-context: dev
clusters:
- {name: dev, cluster: {server: 'http://127.0.0.1:1001'}}
- {name: live, cluster: {server: 'http://127.0.0.1:1002'}}
users:
- {name: reader, user: {token: a}}
- {name: admin, user: {token: b, as: root, as-groups: [wheel]}}
contexts:
- {name: dev, context: {cluster: dev, user: reader, namespace: shop}}
- {name: live, context: {cluster: live, user: admin}}
";

fn parse(arguments: &[&str]) -> Result<ClusterOptions, clap::Error> {
    Command::try_parse_from([&["svcdiag"], arguments].concat()).map(|c| c.cluster)
}

/// What the arguments make of the kubeconfig above.
async fn config(arguments: &[&str]) -> Result<Config, Error> {
    let mut file = tempfile::NamedTempFile::new().unwrap();
    file.write_all(KUBECONFIG.as_bytes()).unwrap();
    let path = file.path().to_str().unwrap();
    let options = parse(&[&["--kubeconfig", path], arguments].concat()).unwrap();
    let mut config = options.config().await?;
    options.impersonate(&mut config);
    Ok(config)
}

#[tokio::test]
async fn context_cluster_and_user_are_chosen_as_by_kubectl() {
    let chosen = async |arguments: &[&str]| {
        let config = config(arguments).await.unwrap();
        let users = config.auth_info.impersonate;
        (config.cluster_url.port_u16(), config.default_namespace, users)
    };
    let root = || Some("root".to_owned());
    assert_eq!(chosen(&[]).await, (Some(1001), "shop".to_owned(), None));
    assert_eq!(
        chosen(&["--context", "live"]).await,
        (Some(1002), "default".to_owned(), root())
    );
    assert_eq!(
        chosen(&["--cluster=live", "--user=admin"]).await,
        (Some(1002), "shop".to_owned(), root())
    );
}

#[tokio::test]
async fn what_the_kubeconfig_does_not_have_is_named_with_what_it_has() {
    for (flag, expected) in [
        (
            "--context",
            "the kubeconfig has no context \"liev\"; it has dev, live",
        ),
        (
            "--cluster",
            "the kubeconfig has no cluster \"liev\"; it has dev, live",
        ),
        (
            "--user",
            "the kubeconfig has no user \"liev\"; it has reader, admin",
        ),
    ] {
        assert_eq!(config(&[flag, "liev"]).await.unwrap_err().to_string(), expected);
    }
}

#[tokio::test]
async fn the_command_line_overrides_the_kubeconfig_as_with_kubectl() {
    let config = async |arguments: &[&str]| config(arguments).await.unwrap();
    let of_other = config(&["-s", "http://127.0.0.1:1003", "--user=admin"]).await;
    assert_eq!(of_other.cluster_url.port_u16(), Some(1003));
    assert_eq!(of_other.default_namespace, "shop", "that of the context stays");
    assert_eq!(of_other.auth_info.impersonate.as_deref(), Some("root"));
    // Without a scheme nothing is sent in the clear.
    let plain = config(&["--server=127.0.0.1:1003"]).await;
    assert_eq!(plain.cluster_url.scheme_str(), Some("https"));
    let insecure = config(&["--insecure-skip-tls-verify"]).await;
    assert!(insecure.accept_invalid_certs && insecure.root_cert.is_none());
    assert_eq!(insecure.cluster_url.port_u16(), Some(1001));
    let named = config(&["--tls-server-name", "api.example"]).await;
    assert_eq!(named.tls_server_name.as_deref(), Some("api.example"));
    // A token takes the place of all other credentials, and whom to impersonate stays.
    let token = config(&["--context=live", "--token=secret"]).await.auth_info;
    let said = serde_json::to_value(&token).unwrap();
    assert_eq!((&said["token"], &said["as"]), (&"secret".into(), &"root".into()));
    let options = parse(&["--token=secret"]).unwrap();
    assert!(!format!("{options:?}").contains("secret"));
    for wrong in [
        &["--insecure-skip-tls-verify", "--certificate-authority=ca.pem"][..],
        &["--client-certificate=c.pem"],
        &["--client-key=k.pem"],
    ] {
        assert!(parse(wrong).is_err(), "{wrong:?}");
    }
}

#[tokio::test]
async fn a_server_on_the_command_line_needs_no_kubeconfig() {
    let options = parse(&["--server=http://127.0.0.1:1003", "--token=secret"]).unwrap();
    let nothing = || {
        let error = std::io::Error::from(std::io::ErrorKind::NotFound);
        Err(KubeconfigError::ReadConfig(error, "/nowhere/config".into()))
    };
    let file = options.overrides.over(nothing()).unwrap();
    let file = options.overrides.apply(&file, &KubeConfigOptions::default());
    let read = Config::from_custom_kubeconfig(file, &KubeConfigOptions::default()).await;
    let config = read.unwrap();
    assert_eq!(config.cluster_url.port_u16(), Some(1003));
    assert_eq!(config.default_namespace, "default");
    // One that is named has to be there, and one that is there has to be one.
    let without = parse(&["--token=secret"]).unwrap();
    assert!(without.overrides.over(nothing()).is_err());
    let named = parse(&["--kubeconfig=/nowhere/config", "-s=http://127.0.0.1:1003"]).unwrap();
    assert!(named.config().await.is_err());
}

#[tokio::test]
async fn a_user_and_groups_are_impersonated() {
    let who = async |arguments: &[&str]| {
        let auth = config(arguments).await.unwrap().auth_info;
        (
            auth.impersonate.unwrap(),
            auth.impersonate_groups.unwrap_or_default(),
        )
    };
    let groups = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
    assert_eq!(
        who(&["--as", "jane", "--as-group=dev", "--as-group=ops"]).await,
        ("jane".to_owned(), groups(&["dev", "ops"]))
    );
    // What is not given stays as the kubeconfig has it.
    assert_eq!(
        who(&["--context=live", "--as=jane"]).await,
        ("jane".to_owned(), groups(&["wheel"]))
    );
    assert!(parse(&["--as-group", "dev"]).is_err());
}

#[test]
fn the_timeout_of_a_request_has_a_unit() {
    let timeout = |arguments: &[&str]| parse(arguments).map(|o| o.request_timeout);
    assert_eq!(timeout(&[]).unwrap(), Duration::from_secs(30));
    assert_eq!(
        timeout(&["--request-timeout=2m"]).unwrap(),
        Duration::from_secs(120)
    );
    assert_eq!(timeout(&["--request-timeout=0"]).unwrap(), Duration::ZERO);
    assert!(timeout(&["--request-timeout=5"]).is_err());
}
