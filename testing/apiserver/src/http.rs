//! From an HTTP request to its answer.

use axum::{
    extract::{Request, State as Shared},
    http::{HeaderMap, Method, StatusCode, header},
    response::{IntoResponse, Response},
};

use super::{
    body,
    call::Call,
    events, paths,
    request::{Query, Target},
    server::{Server, text, warn},
    status::Failure,
    watch::Form,
};

/// Answers a request.
pub(crate) async fn handle(Shared(server): Shared<Server>, request: Request) -> Response {
    answer(&server, request)
        .await
        .unwrap_or_else(IntoResponse::into_response)
}

async fn answer(server: &Server, request: Request) -> Result<Response, Failure> {
    let (head, body) = request.into_parts();
    let path = head.uri.path().to_owned();
    let query = Query::parse(head.uri.query());
    if head.method == Method::GET
        && let Some(response) = paths::answer(server, &path, &head.headers)
    {
        return response;
    }
    let bytes = body::read(body).await?;
    if path == paths::ACCESS_REVIEWS && head.method == Method::POST {
        return paths::review_access(&bytes);
    }
    let mut target = server.store.with(|s| Target::parse(&s.registry, &path))?;
    let watches = query.flag("watch");
    if server.store.with(|s| s.is_denied(&target.resource)) {
        let verb = verb(&head.method, &target, watches);
        let (namespace, name) = (target.namespace.as_deref(), target.name.as_deref());
        return Err(Failure::forbidden(&target.resource, namespace, name, verb));
    }
    let right = target.right(verb(&head.method, &target, watches));
    let agent = text(&head.headers, header::USER_AGENT);
    let client = agent.split(['/', ' ']).next().unwrap_or_default();
    server.store.with(|s| s.count_request(client, right.clone()));
    let token = text(&head.headers, header::AUTHORIZATION).strip_prefix("Bearer ");
    let note = |right: Option<String>| {
        if let (Some(token), Some(right)) = (token, right) {
            server.store.with(|s| s.note_use(token, right));
        }
    };
    note(token.map(|_| right));
    let create = token.map(|_| target.right("create"));
    let form = form(&head.headers)?;
    let new_events = events::is_new_form(&target.resource);
    if new_events {
        let old = server.store.with(|s| s.registry.get("", "v1", "events").cloned());
        target.resource = old.ok_or_else(Failure::no_such_path)?;
    }
    let custom = target.resource.custom.is_some();
    let deprecated = target.resource.kind == "Endpoints";
    let call = Call {
        server,
        target,
        query,
        form,
        new_events,
        headers: &head.headers,
    };
    let response = match (&head.method, call.target.name.is_some()) {
        (&Method::GET, false) if watches && new_events => Err(Failure::method_not_allowed()),
        (&Method::GET, false) if watches => call.watch(),
        (&Method::GET, false) => call.list().await,
        (&Method::GET, true) => call.get(),
        (&Method::POST, false) => call.create(&bytes),
        (&Method::POST, true) if call.target.subresource.as_deref() == Some("binding") => call.bind(&bytes),
        // The name in such a path is not looked at.
        (&Method::POST, true) if custom && call.target.subresource.is_none() => call.create(&bytes),
        (&Method::PUT, true) => call.update(&bytes),
        (&Method::PUT, false) if custom => Err(Failure::bad_request("name must be provided")),
        (&Method::PATCH, true) => call.patch(&bytes),
        (&Method::DELETE, true) => call.delete(&bytes),
        (&Method::DELETE, false) => call.delete_all(&bytes),
        _ => Err(Failure::method_not_allowed()),
    };
    let mut response = response?;
    if response.status() == StatusCode::CREATED {
        // Whoever applies what is not there creates it.
        note(create);
    }
    if deprecated {
        let text = "v1 Endpoints is deprecated in v1.33+; use discovery.k8s.io/v1 EndpointSlice";
        warn(&mut response, text);
    }
    Ok(response)
}

fn verb(method: &Method, target: &Target, watches: bool) -> &'static str {
    match (method.as_str(), &target.name) {
        ("GET", None) if watches => "watch",
        ("GET", None) => "list",
        ("GET", Some(_)) => "get",
        ("POST", _) => "create",
        ("PUT", _) => "update",
        ("PATCH", _) => "patch",
        (_, None) => "deletecollection",
        _ => "delete",
    }
}

/// The first form of the Accept header that is served.
fn form(headers: &HeaderMap) -> Result<Form, Failure> {
    let accept = text(headers, header::ACCEPT);
    for item in accept.split(',').map(str::trim) {
        let mut parts = item.split(';').map(str::trim);
        let kind = parts.next().unwrap_or_default();
        let shape = parts.find_map(|p| p.strip_prefix("as="));
        match (kind, shape) {
            ("application/json" | "application/yaml", Some("Table")) => {
                return Ok(Form::Table("Metadata".to_owned()));
            }
            ("application/json", Some("PartialObjectMetadata" | "PartialObjectMetadataList")) => {
                return Ok(Form::Metadata);
            }
            ("application/json" | "application/*" | "*/*" | "", None) => return Ok(Form::Object),
            _ => {}
        }
    }
    Err(Failure::not_acceptable())
}
