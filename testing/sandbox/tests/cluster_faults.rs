//! What the catalogue says of the API server holds.

use svcdiag_sandbox::cluster::{Cluster, ClusterConfig};
use svcdiag_sandbox::faults::{Fixture, catalogue};

#[tokio::test(flavor = "multi_thread")]
async fn the_string_9376_is_refused_as_the_catalogue_says() {
    let cluster = Cluster::start(ClusterConfig::default()).await.unwrap();
    let fixture = Fixture::new(cluster.client(), "refused");
    let faults = catalogue().unwrap();
    let fault = faults.iter().find(|fault| fault.id == "A06").unwrap();
    let error = fault.inject(&fixture).await.unwrap_err();
    assert!(error.to_string().contains("needs a letter"), "{error}");
    cluster.stop().await;
}
