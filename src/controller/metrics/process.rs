//! What the process uses, under the names that Prometheus' client libraries have for it.
//!
//! <https://prometheus.io/docs/instrumenting/writing_clientlibs/#process-metrics>

use std::fmt;

use procfs::{
    ProcResult, WithCurrentSystemInfo,
    process::{LimitValue, Process as Proc},
};
use prometheus_client::{
    collector::Collector,
    encoding::{DescriptorEncoder, EncodeMetric},
    metrics::{counter::ConstCounter, gauge::ConstGauge},
    registry::Unit,
};

/// The collector. What cannot be read is left out.
#[derive(Debug)]
pub(super) struct Process;

/// What is read for one answer.
struct Usage {
    cpu_seconds: f64,
    start_seconds: f64,
    resident_bytes: u64,
    virtual_bytes: u64,
    threads: i64,
    open_files: usize,
    max_files: Option<u64>,
}

impl Usage {
    fn read() -> ProcResult<Self> {
        let process = Proc::myself()?;
        let stat = process.stat()?;
        let max_files = process.limits()?.max_open_files.soft_limit;
        #[expect(clippy::cast_precision_loss, reason = "ticks since the start of the machine")]
        let seconds = |ticks: u64| ticks as f64 / procfs::ticks_per_second() as f64;
        #[expect(clippy::cast_precision_loss, reason = "seconds since 1970")]
        let boot = procfs::boot_time_secs()? as f64;
        Ok(Self {
            cpu_seconds: seconds(stat.utime + stat.stime),
            start_seconds: boot + seconds(stat.starttime),
            resident_bytes: stat.rss_bytes().get(),
            virtual_bytes: stat.vsize,
            threads: stat.num_threads,
            open_files: process.fd_count()?,
            max_files: match max_files {
                LimitValue::Unlimited => None,
                LimitValue::Value(value) => Some(value),
            },
        })
    }
}

impl Collector for Process {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let Ok(usage) = Usage::read() else {
            return Ok(());
        };
        let mut write = |name: &str, help: &str, unit: Option<&Unit>, value: &dyn EncodeMetric| {
            value.encode(encoder.encode_descriptor(name, help, unit, value.metric_type())?)
        };
        let number = |value: u64| ConstGauge::new(i64::try_from(value).unwrap_or(i64::MAX));
        write(
            "cpu",
            "Time that the process used, of user and system together",
            Some(&Unit::Seconds),
            &ConstCounter::new(usage.cpu_seconds),
        )?;
        write(
            "start_time",
            "When the process started, since 1970",
            Some(&Unit::Seconds),
            &ConstGauge::new(usage.start_seconds),
        )?;
        write(
            "resident_memory",
            "Memory that the process has in RAM",
            Some(&Unit::Bytes),
            &number(usage.resident_bytes),
        )?;
        write(
            "virtual_memory",
            "Size of the address space of the process",
            Some(&Unit::Bytes),
            &number(usage.virtual_bytes),
        )?;
        write(
            "threads",
            "Threads of the process",
            None,
            &ConstGauge::new(usage.threads),
        )?;
        write(
            "open_fds",
            "Open file descriptors",
            None,
            &number(u64::try_from(usage.open_files).unwrap_or(u64::MAX)),
        )?;
        match usage.max_files {
            Some(most) => write(
                "max_fds",
                "File descriptors that may be open",
                None,
                &number(most),
            ),
            None => Ok(()),
        }
    }
}
