//! Authorization for `/metrics`, if enabled: the API server must know the token (TokenReview) and allow its user to `get`
//! the path (SubjectAccessReview), as with the kubelet's own metrics.

use std::{collections::HashMap, time::Duration};

use axum::http::{HeaderMap, StatusCode, header};
use k8s_openapi::api::{
    authentication::v1::{TokenReview, TokenReviewSpec},
    authorization::v1::{NonResourceAttributes, SubjectAccessReview, SubjectAccessReviewSpec},
};
use kube::{Api, Client, api::PostParams};
use parking_lot::Mutex;
use sha2::{Digest, Sha256};
use tokio::{sync::Semaphore, time::Instant};

/// Maximum length of a token, in bytes.
const TOKEN_MAX: usize = 16 * 1024;

/// How long a decision is cached, as with the kubelet; and how many are.
const LASTS: Duration = Duration::from_secs(60);
const KNOWN: usize = 64;

/// Maximum concurrent checks: clients must not make the controller flood the API server.
const AT_ONCE: usize = 4;

/// Timeout of the API server.
const TIMEOUT: Duration = Duration::from_secs(5);

type Refusal = (StatusCode, &'static str);

/// A decision and its time.
type Answered = (Instant, Result<(), Refusal>);

/// Cached decisions, by hash of the token.
#[derive(Debug)]
pub(super) struct Readers {
    known: Mutex<HashMap<[u8; 32], Answered>>,
    questions: Semaphore,
}

impl Default for Readers {
    fn default() -> Self {
        Self {
            known: Mutex::default(),
            questions: Semaphore::new(AT_ONCE),
        }
    }
}

impl Readers {
    /// Whether a request may read the metrics.
    pub(super) async fn admit(&self, client: &Client, headers: &HeaderMap) -> Result<(), Refusal> {
        let token = headers.get(header::AUTHORIZATION).and_then(|v| v.to_str().ok());
        let token = token.and_then(|v| v.strip_prefix("Bearer ")).map(str::trim);
        let Some(token) = token.filter(|t| !t.is_empty() && t.len() <= TOKEN_MAX) else {
            return Err((StatusCode::UNAUTHORIZED, "a bearer token is required"));
        };
        let key: [u8; 32] = Sha256::digest(token).into();
        if let Some(known) = self.known(&key) {
            return known;
        }
        let Ok(_permit) = self.questions.try_acquire() else {
            return Err((
                StatusCode::TOO_MANY_REQUESTS,
                "too many tokens are being checked; try again",
            ));
        };
        let asked = tokio::time::timeout(TIMEOUT, ask(client, token)).await;
        let answer = match asked {
            Ok(Ok(answer)) => answer,
            // An unknown result is not cached.
            Ok(Err(error)) => {
                tracing::warn!("Could not check whether a token may read /metrics: {error}.");
                return Err((
                    StatusCode::INTERNAL_SERVER_ERROR,
                    "the API server could not check the token",
                ));
            }
            Err(_) => return Err((StatusCode::INTERNAL_SERVER_ERROR, "the API server did not answer")),
        };
        let mut known = self.known.lock();
        if known.len() >= KNOWN {
            known.retain(|_, (at, _)| at.elapsed() < LASTS);
        }
        // A client with many wrong tokens must not evict those that may read.
        if known.len() >= KNOWN {
            known.retain(|_, (_, answer)| answer.is_ok());
        }
        if known.len() < KNOWN {
            known.insert(key, (Instant::now(), answer));
        }
        answer
    }

    fn known(&self, key: &[u8; 32]) -> Option<Result<(), Refusal>> {
        let known = self.known.lock();
        known
            .get(key)
            .filter(|(at, _)| at.elapsed() < LASTS)
            .map(|(_, answer)| *answer)
    }
}

async fn ask(client: &Client, token: &str) -> kube::Result<Result<(), Refusal>> {
    let review = TokenReview {
        spec: TokenReviewSpec {
            token: token.to_owned(),
            ..TokenReviewSpec::default()
        },
        ..TokenReview::default()
    };
    let reviews: Api<TokenReview> = Api::all(client.clone());
    let status = reviews.create(&PostParams::default(), &review).await?.status;
    let user = status
        .filter(|s| s.authenticated == Some(true))
        .and_then(|s| s.user);
    let Some(user) = user else {
        return Ok(Err((
            StatusCode::UNAUTHORIZED,
            "the API server rejected the token",
        )));
    };
    let review = SubjectAccessReview {
        spec: SubjectAccessReviewSpec {
            user: user.username,
            uid: user.uid,
            groups: user.groups,
            extra: user.extra,
            non_resource_attributes: Some(NonResourceAttributes {
                path: Some("/metrics".to_owned()),
                verb: Some("get".to_owned()),
            }),
            ..SubjectAccessReviewSpec::default()
        },
        ..SubjectAccessReview::default()
    };
    let reviews: Api<SubjectAccessReview> = Api::all(client.clone());
    let status = reviews.create(&PostParams::default(), &review).await?.status;
    Ok(match status.is_some_and(|s| s.allowed) {
        true => Ok(()),
        false => Err((StatusCode::FORBIDDEN, "the token is not allowed to get /metrics")),
    })
}

#[cfg(test)]
mod tests {
    use axum::{Json, Router, routing::post};
    use serde_json::{Value, json};

    use super::*;

    /// An API server that knows two tokens, one of which may read, and counts requests.
    async fn api() -> (Client, std::sync::Arc<std::sync::atomic::AtomicUsize>) {
        let asked = std::sync::Arc::new(std::sync::atomic::AtomicUsize::new(0));
        let count = asked.clone();
        let tokens = move |Json(mut review): Json<Value>| {
            count.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
            let token = review["spec"]["token"].as_str().unwrap_or_default().to_owned();
            review["status"] = match token.as_str() {
                "reader" | "other" => {
                    json!({ "authenticated": true, "user": { "username": token, "groups": ["g"] } })
                }
                _ => json!({ "authenticated": false }),
            };
            async move { Json(review) }
        };
        let access = |Json(mut review): Json<Value>| {
            let is_right = review["spec"]["nonResourceAttributes"]
                == json!({ "path": "/metrics", "verb": "get" })
                && review["spec"]["groups"] == json!(["g"]);
            review["status"] = json!({ "allowed": is_right && review["spec"]["user"] == "reader" });
            async move { Json(review) }
        };
        let app = Router::new()
            .route("/apis/authentication.k8s.io/v1/tokenreviews", post(tokens))
            .route("/apis/authorization.k8s.io/v1/subjectaccessreviews", post(access));
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        tokio::spawn(async move { axum::serve(listener, app).await });
        (
            Client::try_from(kube::Config::new(url.parse().unwrap())).unwrap(),
            asked,
        )
    }

    #[tokio::test]
    async fn only_who_may_get_the_metrics_reads_them_and_is_asked_about_once() {
        let (client, asked) = api().await;
        let readers = Readers::default();
        let admit = async |authorization: Option<&str>| {
            let mut headers = HeaderMap::new();
            if let Some(value) = authorization {
                headers.insert(header::AUTHORIZATION, value.parse().unwrap());
            }
            readers
                .admit(&client, &headers)
                .await
                .map_err(|(code, _)| code.as_u16())
        };
        assert_eq!(admit(None).await, Err(401));
        assert_eq!(admit(Some("Basic cmVhZGVy")).await, Err(401));
        assert_eq!(
            admit(Some(&format!("Bearer {}", "x".repeat(TOKEN_MAX + 1)))).await,
            Err(401)
        );
        assert_eq!(asked.load(std::sync::atomic::Ordering::Relaxed), 0);
        for _ in 0..3 {
            assert_eq!(admit(Some("Bearer reader")).await, Ok(()));
            assert_eq!(admit(Some("Bearer other")).await, Err(403));
            assert_eq!(admit(Some("Bearer nobody")).await, Err(401));
        }
        assert_eq!(asked.load(std::sync::atomic::Ordering::Relaxed), 3);
    }
}
