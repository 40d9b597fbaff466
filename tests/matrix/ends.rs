//! Dials that are lost between nodes: a verdict stands from the first failure on, while the endpoint's node watches what
//! arrives and the client's node dials again, and then names the cause.

use std::time::{Duration, Instant};

use crate::harness::{Harness, SOON, fault, on_a_cluster};

/// Until what the endpoint's node drops is named. Ready is False from its first False on.
async fn named(harness: &Harness, id: &str) -> Result<(), String> {
    let fault = fault(id);
    harness.inject(&fault).await?;
    let start = Instant::now();
    let mut broken: Option<Duration> = None;
    loop {
        let verdict = harness.fixture.verdict().await.map_err(|e| e.to_string())?;
        if fault.expected.is_met_by(&verdict) {
            break;
        }
        let is_broken = verdict.condition("Ready").is_some_and(|c| c.status == "False");
        match broken {
            None if is_broken => broken = Some(start.elapsed()),
            Some(_) if !is_broken => {
                return Err(format!(
                    "{id} is no longer False: {}",
                    harness.told(&verdict).await
                ));
            }
            _ => {}
        }
        if start.elapsed() > SOON {
            return Err(format!("{id}: {}", harness.told(&verdict).await));
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    println!(
        "both ends ({id}): False after {:.1} s, the cause named after {:.1} s",
        broken.unwrap_or_default().as_secs_f64(),
        start.elapsed().as_secs_f64()
    );
    harness.fix(&fault).await.map_err(String::from)
}

#[tokio::test(flavor = "multi_thread")]
async fn the_cause_is_named_while_the_verdict_stands() {
    on_a_cluster(async |harness| named(harness, "N66").await).await;
}
