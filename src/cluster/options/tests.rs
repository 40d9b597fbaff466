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
