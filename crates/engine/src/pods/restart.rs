//! The command that has a Pod replaced by a new one, where there is one.

use crate::text::quoted;
use svcdiag_objects::{Object, Pod};

/// Deletes one Pod, which its controller replaces. None where nothing would: a Pod without a controller is gone, and
/// that of a Job may count as a failure of the Job.
pub(crate) fn command(pod: &Pod) -> Option<String> {
    pod.is_recreated().then(|| {
        format!(
            "`kubectl -n {} delete pod {}`",
            quoted(pod.namespace()),
            quoted(pod.name())
        )
    })
}
