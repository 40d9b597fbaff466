//! A Service that works is never blamed at rest, in any proxy mode.

use std::time::Instant;

use svcdiag_sandbox::{faults::Verdict, kernel::Wiring, proxy::ProxyMode};

use crate::lane::{Kind, Lane, SOON};

const ROUNDS: usize = 50;

fn kind(mode: ProxyMode) -> Kind {
    Kind {
        mode,
        wiring: Wiring::Bridge,
    }
}

async fn rounds(lane: &Lane) -> Result<(), String> {
    for round in 1..=ROUNDS {
        lane.round(SOON)
            .await
            .map_err(|e| format!("round {round}: {e}"))?;
    }
    Ok(())
}

/// So many rounds in a mode; nothing may be False at any time.
async fn rest(mode: ProxyMode) -> Result<(), String> {
    let lane = Lane::start(kind(mode)).await?;
    let result = lane.unblamed_while(rounds(&lane)).await;
    let result = match result {
        Ok(()) => lane
            .wait("well at the end", SOON, Verdict::works)
            .await
            .map(drop)
            .map_err(String::from),
        Err(why) => Err(why),
    };
    lane.stop().await;
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
