//! What is in the page, and what must not get into it.

#[cfg(unix)]
mod accessibility;

use std::collections::{BTreeMap, BTreeSet};

use regex::Regex;
use serde_json::json;

use super::html;
use crate::{
    api::ServiceDiagnosis,
    report::fixtures::{FIXTURES, Fixture},
};

/// What somebody might write into a name, a message or a saved file.
const HOSTILE: &str = "</style></title></svg><script>alert('1')</script><img src=x onerror=\"alert(2)\">' onload='x' & `rm -rf /`";

fn page(object: &ServiceDiagnosis) -> String {
    html(&[object])
}

/// The verdict `dropped`, with this text wherever a text may come from the cluster.
fn foreign(text: &str) -> ServiceDiagnosis {
    let mut object = Fixture::named("dropped").value();
    object["metadata"]["namespace"] = json!(text);
    object["spec"]["serviceName"] = json!(text);
    let status = &mut object["status"];
    for condition in status["conditions"].as_array_mut().unwrap() {
        condition["message"] = json!(text);
    }
    for field in ["message", "remediation", "link", "condition", "reason"] {
        status["rootCause"][field] = json!(text);
    }
    for field in ["endpoints", "proxy", "dns", "hairpin"] {
        status["summary"][field] = json!(text);
    }
    status["proxyMode"] = json!(text);
    for seen in status["observations"].as_array_mut().unwrap() {
        for field in ["condition", "node", "pod", "target", "result", "detail"] {
            // The stages of some are kept, so that their texts get into the path.
            if field != "condition" || seen["condition"] == "DNSResolves" {
                seen[field] = json!(text);
            }
        }
    }
    serde_json::from_value(object).unwrap()
}

/// The body with a line for each tag, as a snapshot is read.
fn body(page: &str) -> String {
    let (_, body) = page.split_once("<body>").unwrap();
    body.replace("><", ">\n<")
}

/// The tags in their order, with the names of their attributes.
fn skeleton(page: &str) -> Vec<String> {
    let value = Regex::new("=\"[^\"]*\"").unwrap();
    let (_, body) = page.split_once("</style>").unwrap();
    let tag = Regex::new("<[^>]*>").unwrap();
    tag.find_iter(body)
        .map(|tag| value.replace_all(tag.as_str(), "").into_owned())
        .collect()
}

fn attributes(page: &str, name: &str) -> Vec<String> {
    let attribute = Regex::new(&format!(" {name}=\"([^\"]*)\"")).unwrap();
    attribute
        .captures_iter(page)
        .map(|found| found[1].to_owned())
        .collect()
}

#[test]
fn the_pages_of_each_kind_of_service() {
    for fixture in &FIXTURES {
        insta::assert_snapshot!(fixture.name, body(&page(&fixture.object())));
    }
    insta::assert_snapshot!("hostile", body(&page(&foreign(HOSTILE))));
}

#[test]
fn what_others_wrote_is_text_and_nothing_else() {
    // The same where a text decides what is shown: it has a command, and is no address.
    let (hostile, harmless) = (
        page(&foreign(HOSTILE)),
        page(&foreign("harmless, with a `command`")),
    );
    let lines = |page: &str| {
        skeleton(page)
            .into_iter()
            .filter(|tag| !tag.starts_with("<text") && tag != "</text>")
            .collect::<Vec<_>>()
    };
    assert_eq!(lines(&hostile), lines(&harmless));
    for harm in ["<script", "<img", "'1'</", "</svg></"] {
        assert!(!hostile.contains(harm), "{harm}");
    }
    assert!(hostile.contains("&lt;script&gt;alert('1')"), "{hostile}");
    assert_eq!(hostile.matches("</style>").count(), 1);
}

#[test]
fn nothing_is_run_or_loaded() {
    let mut pages: Vec<String> = FIXTURES.iter().map(|fixture| page(&fixture.object())).collect();
    pages.push(page(&foreign(HOSTILE)));
    for page in pages {
        let tags: String = skeleton(&page).concat();
        for loader in [
            " src", "<link", "<script", "<img", "<iframe", "<use", " style", " on",
        ] {
            assert!(!tags.contains(loader), "{loader}: {tags}");
        }
        let links = attributes(&page, "href");
        assert!(
            links
                .iter()
                .all(|link| link.starts_with("https://github.com/svcdiag/svcdiag/blob/main/docs/reasons/")),
            "{links:?}"
        );
    }
    let style = include_str!("style.css");
    for loader in ["url(", "@import", "@font-face", "http"] {
        assert!(!style.contains(loader), "{loader}");
    }
}

#[test]
fn a_link_that_a_browser_would_run_is_not_written() {
    let mut object = Fixture::named("dropped").object();
    let cause = object.status.as_mut().unwrap().root_cause.as_mut().unwrap();
    cause.link = Some("javascript:alert(1)".to_owned());
    assert!(!page(&object).contains("javascript"));
}

/// Everything that the status says of a fault is in the page.
#[test]
fn the_page_has_the_cause_the_fix_and_the_evidence() {
    let found = page(&Fixture::named("dropped").object());
    let texts = [
        "<h1>Service <span class=\"name\">shop/web</span></h1>",
        "<title>Service shop/web: does not work - svcdiag</title>",
        "<code class=\"name\">FirewallDrops</code> (nothing works)",
        "<pre><code>nft -a list chain inet firewalld filter_FORWARD</code></pre>",
        "connection timed out; 3 packets dropped by nftables, table inet firewalld",
        "\u{2717} 10.244.1.5:8080",
        "<code class=\"name\">HairpinOK</code> (<code class=\"name\">Blocked</code>): Waiting for EndpointsReachable.",
    ];
    for text in texts {
        assert!(found.contains(text), "{text}\n{found}");
    }
}

#[test]
fn headings_and_descriptions_lead_a_screen_reader() {
    let all: Vec<ServiceDiagnosis> = FIXTURES.iter().map(Fixture::object).collect();
    let all: Vec<&ServiceDiagnosis> = all.iter().collect();
    let heading = Regex::new("<h([1-6])>").unwrap();
    let local = Regex::new("href=\"#([^\"]*)\"").unwrap();
    for page in [html(&all), html(&all[..1]), html(&all[2..3]), html(&[])] {
        assert!(page.starts_with("<!DOCTYPE html><html lang=\"en\">"), "{page}");
        let levels: Vec<u8> = heading
            .captures_iter(&page)
            .map(|h| h[1].parse().unwrap())
            .collect();
        assert_eq!(
            levels.iter().filter(|level| **level == 1).count(),
            1,
            "{levels:?}"
        );
        assert!(
            levels[0] == 1 && levels.windows(2).all(|w| w[1] <= w[0] + 1),
            "{levels:?}"
        );
        let ids = attributes(&page, "id");
        let known: BTreeSet<&String> = ids.iter().collect();
        assert_eq!(known.len(), ids.len(), "an id is there twice: {ids:?}");
        let named = attributes(&page, "aria-labelledby");
        assert_eq!(named.len(), page.matches("<svg").count());
        assert_eq!(page.matches("role=\"img\"").count(), named.len());
        let described = attributes(&page, "aria-describedby");
        assert!(
            named.iter().chain(&described).all(|id| known.contains(id)),
            "{named:?}"
        );
        let mut local = local.captures_iter(&page).map(|link| link[1].to_owned());
        assert!(local.all(|id| known.contains(&id)), "{ids:?}");
    }
}

#[test]
fn several_services_have_a_list_and_an_article_each() {
    let all: Vec<ServiceDiagnosis> = FIXTURES.iter().map(Fixture::object).collect();
    let all: Vec<&ServiceDiagnosis> = all.iter().collect();
    let page = html(&all);
    assert!(
        page.contains("<p>6 Services, those that do not work first.</p>"),
        "{page}"
    );
    assert_eq!(page.matches("<article").count(), all.len());
    assert_eq!(page.matches("<a href=\"#s").count(), all.len());
    assert!(html(&[]).contains("No Services found."));
}

#[test]
fn a_diagnosis_without_a_verdict_says_so() {
    let mut object = Fixture::named("healthy").object();
    object.status = None;
    let page = page(&object);
    assert!(
        page.contains("There is no verdict yet.") && page.contains("unknown"),
        "{page}"
    );
}

/// The colours of a block of the style, by name.
fn colours(block: &str) -> BTreeMap<String, [f64; 3]> {
    let colour = Regex::new("--([a-z-]+): #([0-9a-f]{2})([0-9a-f]{2})([0-9a-f]{2});").unwrap();
    let channel = |text: &str| f64::from(u8::from_str_radix(text, 16).unwrap()) / 255.0;
    let found = colour.captures_iter(block);
    found
        .map(|c| (c[1].to_owned(), [channel(&c[2]), channel(&c[3]), channel(&c[4])]))
        .collect()
}

/// The relative luminance of WCAG 2.
fn luminance(colour: [f64; 3]) -> f64 {
    let linear = |c: f64| {
        if c <= 0.04045 {
            c / 12.92
        } else {
            ((c + 0.055) / 1.055).powf(2.4)
        }
    };
    let [red, green, blue] = colour.map(linear);
    0.2126f64.mul_add(red, 0.7152f64.mul_add(green, 0.0722 * blue))
}

#[test]
fn every_text_has_enough_contrast() {
    let style = include_str!("style.css");
    let blocks: Vec<&str> = style
        .split(":root {")
        .skip(1)
        .map(|rest| rest.split('}').next().unwrap())
        .collect();
    assert_eq!(blocks.len(), 3, "light, dark and print");
    for block in blocks {
        let colours = colours(block);
        let backgrounds = ["page", "panel", "bad-panel"];
        for text in ["text", "muted", "link", "ok", "bad", "open"] {
            for background in backgrounds {
                let [a, b] = [text, background].map(|name| luminance(colours[name]));
                let contrast = (a.max(b) + 0.05) / (a.min(b) + 0.05);
                assert!(
                    contrast >= 4.5,
                    "--{text} on --{background}: {contrast:.2}\n{block}"
                );
            }
        }
    }
}
