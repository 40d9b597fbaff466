//! stand-in until merged
pub(super) async fn run(_zone: std::path::PathBuf) -> std::io::Result<()> {
    std::future::pending().await
}
