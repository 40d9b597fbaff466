//! A Service that works is never blamed at rest, in any proxy mode.

use std::time::Instant;

use svcdiag_sandbox::{faults::Verdict, kernel::Wiring, proxy::ProxyMode};

use crate::harness::{Harness, Kind, SOON};

const ROUNDS: usize = 50;

fn kind(mode: ProxyMode) -> Kind {
    Kind {
        mode,
        wiring: Wiring::Bridge,
    }
}

async fn rounds(harness: &Harness) -> Result<(), String> {
    for round in 1..=ROUNDS {
        harness
            .round(SOON)
            .await
            .map_err(|e| format!("round {round}: {e}"))?;
    }
    Ok(())
}

/// So many rounds in a mode; nothing may be False at any time.
async fn rest(mode: ProxyMode) -> Result<(), String> {
    let harness = Harness::start(kind(mode)).await?;
    let result = harness.unblamed_while(rounds(&harness)).await;
    let result = match result {
        Ok(()) => harness
            .wait("well at the end", SOON, Verdict::works)
            .await
            .map(drop)
            .map_err(String::from),
        Err(why) => Err(why),
    };
    harness.stop().await;
    result.map_err(|why| format!("{mode}: {why}"))
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_false_at_rest_in_any_mode() {
    let start = Instant::now();
    let results = futures::future::join_all(ProxyMode::ALL.map(rest)).await;
    let failures: Vec<String> = results.into_iter().filter_map(Result::err).collect();
    println!(
        "at rest: {ROUNDS} rounds x {} modes, {} with anything False ({:.0} s)",
        ProxyMode::ALL.len(),
        failures.len(),
        start.elapsed().as_secs_f64()
    );
    assert!(failures.is_empty(), "{}", failures.join("\n\n"));
}
