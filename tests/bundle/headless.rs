//! A headless Service whose port is not that of its Pods: some clients dial it all the same.

use serde_json::json;
use svcdiag::api::{ConditionStatus, ConditionType as C, Reason as R};

use super::page::*;

const CURL: &str = "pods/default/alpine/curl.txt";

/// The Service without an address, and its name with that of a Pod; what clients asked for.
fn headless(requests: &str) -> impl FnOnce(&mut Page) {
    move |page| {
        let mut service = service();
        service["spec"]["clusterIP"] = json!("None");
        page.objects[0] = list("ServiceList", &[service]);
        page.set(
            "pods/default/alpine/nslookup.txt",
            &NSLOOKUP.replace("10.0.1.175", "10.244.1.7"),
        );
        page.set(
            "nodes/node-1/nslookup.txt",
            &NODE_NSLOOKUP.replace("10.0.1.175", "10.244.1.7"),
        );
        page.files
            .retain(|(path, _)| !path.ends_with("save.txt") && path != "nodes/node-1/curl.txt");
        page.set(CURL, requests);
    }
}

fn request(target: &str, address: &str, says: &str) -> String {
    format!("u@pod$ curl -v http://{target}/\n*   Trying {address}...\n{says}\n")
}

fn refused(target: &str, address: &str) -> String {
    let says = "curl: (7) Failed to connect to hostnames port 80 after 1 ms: Connection refused";
    request(target, address, says)
}

#[test]
fn the_port_of_the_service_is_dialled_by_name_and_nobody_is_there() {
    for name in ["hostnames", "hostnames.default:80"] {
        let requests = refused(name, "10.244.1.7:80");
        let d = fails(
            Mode::Iptables,
            C::EndpointsReachable,
            R::ConnectionRefused,
            headless(&requests),
        );
        let root = d.root_cause.unwrap();
        assert!(
            root.message.contains("headless and does not translate ports")
                && root.message.contains("port 9376"),
            "{}",
            root.message
        );
        assert!(
            root.remediation.starts_with("Have clients use port 9376"),
            "{}",
            root.remediation
        );
    }
}

#[test]
fn clients_that_know_the_port_of_the_pods_or_got_through_are_served() {
    let ok = request("hostnames", "10.244.1.7:80", "< HTTP/1.1 200 OK");
    let timed_out = "curl: (28) Failed to connect to hostnames port 80 after 130000 ms: Connection timed out";
    for requests in [
        String::new(),
        request("hostnames:9376", "10.244.1.7:9376", "< HTTP/1.1 200 OK"),
        // By its address anybody may try any port of a Pod.
        refused("10.244.1.7", "10.244.1.7:80"),
        // A port that is not the Service's, another Service, and an address that is no endpoint's.
        refused("hostnames:8080", "10.244.1.7:8080"),
        refused("web", "10.244.1.7:80"),
        refused("hostnames", "10.244.9.9:80"),
        refused("hostnames", "10.244.1.7:80") + &ok,
        request("hostnames", "10.244.1.7:80", timed_out),
    ] {
        let (d, _) = unblamed(Mode::Iptables, headless(&requests));
        assert_eq!(
            d.ready.status,
            ConditionStatus::True,
            "{requests}\n{}",
            report(&d)
        );
        let (_, definition) = d.stages.iter().find(|(c, _)| *c == C::DefinitionValid).unwrap();
        assert_eq!(definition.reason, R::ValidWithHints);
        assert!(definition.message.contains("clients must use port 9376, not 80"));
    }
}
