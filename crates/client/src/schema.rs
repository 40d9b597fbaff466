//! The schemas of our kinds as the API server serves them, which may be older than this program. Every
//! authenticated user may read them (`/openapi/v3`).

use kube::Client;
use serde_json::Value;

use svcdiag_api::{GROUP, Schemas, schemas_in};

/// The schemas that the API server serves of our group; none while it does not serve the group.
///
/// # Errors
/// When the API server does not answer.
pub async fn schemas(client: &Client) -> kube::Result<Schemas> {
    let request = http::Request::get(format!("/openapi/v3/apis/{GROUP}/v1alpha1"));
    let request = request
        .header(http::header::ACCEPT, "application/json")
        .body(Vec::new())
        .map_err(kube::Error::HttpError)?;
    let document: Value = client.request(request).await?;
    Ok(schemas_in(&document))
}
