//! All targets with libFuzzer, which brings its own `main`: `FUZZ_TARGET` names the one to run. Where
//! `FUZZ_SEEDS` names a directory, the seeds of all targets are written there instead.
#![no_main]

use std::{path::Path, process::exit, sync::OnceLock};

use svcdiag_fuzz::{Run, seeds, target};

static TARGET: OnceLock<Run> = OnceLock::new();

fn choose() -> Run {
    if let Some(directory) = std::env::var_os("FUZZ_SEEDS") {
        if let Err(error) = seeds::write(Path::new(&directory)) {
            eprintln!("seeds: {error}");
            exit(1);
        }
        exit(0);
    }
    let name = std::env::var("FUZZ_TARGET").unwrap_or_default();
    target(&name).unwrap_or_else(|| {
        eprintln!("FUZZ_TARGET={name}: there is no such target");
        exit(1);
    })
}

libfuzzer_sys::fuzz_target!(init: { TARGET.get_or_init(choose); }, |data: &[u8]| {
    if let Some(run) = TARGET.get() {
        run(data);
    }
});
