use kube::Config;
use kube::api::DeleteParams;
use svcdiag_sandbox::cluster::{Cluster, ClusterConfig};

use super::*;
use crate::client::routes::Access;

async fn cluster() -> Cluster {
    let config = ClusterConfig {
        controllers: false,
        assets: None,
        ..ClusterConfig::default()
    };
    Cluster::start(config).await.unwrap()
}

fn candidate(cluster: &Cluster, name: &str) -> (Candidate, Arc<Claim>) {
    let claim = Arc::<Claim>::default();
    let candidate = Candidate::new(cluster.client(), "default", name.to_owned(), claim.clone());
    (candidate, claim)
}

#[test]
fn outside_of_a_pod_a_candidate_is_named_after_its_machine_and_its_process() {
    let host = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap();
    assert_eq!(
        outside_of_a_pod(),
        format!("{}_{}", host.trim(), std::process::id())
    );
}

fn request(method: Method, path: &str) -> Request<Body> {
    let request = Request::builder().method(method).uri(path);
    request.body(Body::empty()).unwrap()
}

const STATUS: &str = "/apis/svcdiag.dev/v1alpha1/namespaces/shop/servicediagnoses/cart/status";

#[test]
fn without_a_claim_only_reads_pass() {
    let claim = Claim::default();
    assert!(claim.fence(request(Method::GET, STATUS)).is_ok());
    for method in [Method::PATCH, Method::POST, Method::PUT, Method::DELETE] {
        assert!(claim.fence(request(method.clone(), STATUS)).is_err(), "{method}");
    }
    let review = request(Method::POST, "/apis/authentication.k8s.io/v1/tokenreviews");
    assert!(claim.fence(review).is_ok(), "it leaves no object");
    assert!(Claim::unlimited().fence(request(Method::PATCH, STATUS)).is_ok());
}

#[test]
fn a_claim_ends_by_itself() {
    let claim = Claim::default();
    claim.set(Standing::Until(Instant::now() + Duration::from_secs(60)));
    assert!(claim.holds());
    // As after a process was stopped for long.
    claim.set(Standing::Until(Instant::now()));
    assert!(!claim.holds());
    assert!(claim.fence(request(Method::PATCH, STATUS)).is_err());
}

/// What reaches the server is counted by its method.
#[tokio::test]
async fn a_fenced_client_sends_no_write_without_a_claim() {
    let writes = Arc::<Mutex<Vec<Method>>>::default();
    let seen = writes.clone();
    let answer = move |request: axum::extract::Request| {
        seen.lock().push(request.method().clone());
        let object = serde_json::json!({ "apiVersion": "coordination.k8s.io/v1", "kind": "Lease",
            "metadata": { "name": "a" } });
        std::future::ready(axum::Json(object))
    };
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let app = axum::Router::new().fallback(answer);
    let server = tokio::spawn(async { axum::serve(listener, app).await });

    let claim = Arc::<Claim>::default();
    let mut config = Config::new(url.parse().unwrap());
    config.default_retry = false;
    let access = Access::from(Client::try_from(config).unwrap());
    let api: Api<Lease> = Api::namespaced(fenced(access.switching("shop"), &claim), "shop");
    let lease = Lease {
        metadata: ObjectMeta {
            name: Some("a".to_owned()),
            ..ObjectMeta::default()
        },
        ..Lease::default()
    };
    let write = async || api.create(&PostParams::default(), &lease).await;
    let refusal = write().await.unwrap_err().to_string();
    assert!(refusal.contains("not the leader"), "{refusal}");
    api.get("a").await.unwrap();
    claim.set(Standing::Until(Instant::now() + Duration::from_secs(600)));
    write().await.unwrap();
    claim.set(Standing::Until(Instant::now()));
    write().await.unwrap_err();
    assert_eq!(*writes.lock(), [Method::GET, Method::POST]);
    server.abort();
}

#[tokio::test(flavor = "multi_thread")]
async fn one_of_two_candidates_leads_and_the_other_follows_once_it_is_released() {
    let cluster = cluster().await;
    let ((mut first, of_first), (mut second, of_second)) =
        (candidate(&cluster, "first"), candidate(&cluster, "second"));
    assert_eq!(first.attempt(true).await.unwrap(), Attempt::Ours);
    assert_eq!(
        second.attempt(true).await.unwrap(),
        Attempt::Theirs("first".to_owned())
    );
    assert!(of_first.holds() && !of_second.holds());
    // A renewal is no transition.
    assert_eq!(first.attempt(false).await.unwrap(), Attempt::Ours);
    first.release().await;
    assert!(!of_first.holds());
    assert_eq!(second.attempt(true).await.unwrap(), Attempt::Ours);
    assert!(of_second.holds());
    assert_eq!(
        first.attempt(false).await.unwrap(),
        Attempt::Theirs("second".to_owned())
    );
    let lease = second.get().await.unwrap().unwrap().spec.unwrap();
    assert_eq!(lease.lease_transitions, Some(1));
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lease_that_nobody_renews_is_taken_after_its_duration_by_the_own_clock() {
    let cluster = cluster().await;
    let ((mut first, _), (mut second, of_second)) =
        (candidate(&cluster, "first"), candidate(&cluster, "second"));
    first.attempt(true).await.unwrap();
    second.attempt(true).await.unwrap();
    let (_, at) = second.seen.as_mut().unwrap();
    *at = Instant::now()
        .checked_sub(LEASE + Duration::from_secs(1))
        .unwrap();
    assert_eq!(second.attempt(true).await.unwrap(), Attempt::Ours);
    assert!(of_second.holds());
    // The first, back from a long stop, learns of it and takes nothing back.
    assert_eq!(
        first.attempt(false).await.unwrap(),
        Attempt::Theirs("second".to_owned())
    );
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn of_two_that_take_the_lease_at_once_one_fails() {
    let cluster = cluster().await;
    let ((mut first, of_first), (mut second, of_second)) =
        (candidate(&cluster, "first"), candidate(&cluster, "second"));
    let (a, b) = tokio::join!(first.attempt(true), second.attempt(true));
    let lead = [&a, &b]
        .into_iter()
        .filter(|attempt| matches!(attempt, Ok(Attempt::Ours)))
        .count();
    assert_eq!(lead, 1, "{a:?} {b:?}");
    assert!(of_first.holds() != of_second.holds());
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_leader_whose_lease_is_deleted_steps_down() {
    let cluster = cluster().await;
    let (mut first, _) = candidate(&cluster, "first");
    first.attempt(true).await.unwrap();
    first.api.delete(NAME, &DeleteParams::default()).await.unwrap();
    assert_eq!(first.attempt(false).await.unwrap(), Attempt::Nobodys);
    cluster.stop().await;
}

/// An API server with this one Lease, which does not answer the second time that somebody reads it.
async fn server_that_stalls_once() -> Client {
    let held = Arc::<Mutex<Option<serde_json::Value>>>::default();
    let reads = Arc::<Mutex<usize>>::default();
    let answer = async move |request: axum::extract::Request| {
        let is_read = *request.method() == Method::GET;
        if !is_read {
            let body = axum::body::to_bytes(request.into_body(), 65_536).await.unwrap();
            *held.lock() = serde_json::from_slice(&body).unwrap();
        }
        let stalls = is_read && {
            let mut reads = reads.lock();
            *reads += 1;
            *reads == 2
        };
        if stalls {
            tokio::time::sleep(Duration::from_secs(60)).await;
        }
        match held.lock().clone() {
            Some(lease) => (http::StatusCode::OK, axum::Json(lease)),
            None => {
                let status = serde_json::json!({ "kind": "Status", "apiVersion": "v1", "metadata": {},
                    "status": "Failure", "message": "not found", "reason": "NotFound", "code": 404 });
                (http::StatusCode::NOT_FOUND, axum::Json(status))
            }
        }
    };
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let app = axum::Router::new().fallback(answer);
    tokio::spawn(async { axum::serve(listener, app).await });
    let mut config = Config::new(url.parse().unwrap());
    config.default_retry = false;
    Client::try_from(config).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_claim_outlasts_one_renewal_without_an_answer() {
    let claim = Arc::<Claim>::default();
    let client = server_that_stalls_once().await;
    let mut candidate = Candidate::new(client, "default", "first".to_owned(), claim.clone());
    assert_eq!(candidate.attempt(true).await.unwrap(), Attempt::Ours);
    let start = Instant::now();
    let holds_all_the_time = async {
        while start.elapsed() < LEASE {
            tokio::time::sleep(Duration::from_millis(50)).await;
            assert!(claim.holds(), "{:?}", start.elapsed());
        }
    };
    tokio::select! {
        () = holds_all_the_time => {}
        lost = candidate.hold() => panic!("{lost}"),
    }
}
