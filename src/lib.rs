//! Why does this Kubernetes Service not work? See `README.md`.
