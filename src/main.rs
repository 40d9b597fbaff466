fn main() {
    for c in svcdiag::api::crds() { println!("---"); print!("{}", serde_saphyr::to_string(&c).unwrap()); }
}
