//! The page of a benchmark's report in a browser: it loads nothing else, and no part of it is blank or cut
//! off.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]
#![allow(clippy::disallowed_methods, reason = "a test writes scratch files")]

mod chromium;
mod picture;
#[path = "../sample/mod.rs"]
mod sample;
mod site;

use chromium::Chromium;
use picture::{Picture, Rectangle};
use serde_json::Value;
use site::{REPORT, Site};

use report::{
    AllTimings, Answer, Bound, ConfigResults, Criterion, Divergence, Gate, Judgement, Machine, Perplexity,
    Quantity, Report, Results, Timings, Verdict, judge, wilson,
};

/// The parts of the page that must not be blank, and how many colours each has at least.
const PARTS: [(&str, usize); 5] =
    [(".outcome", 4), (".figures", 4), (".plot", 6), (".bars", 4), (".cells", 8)];

#[test]
fn the_page_is_all_that_is_asked_for() {
    let site = Site::serving(&sample::rich().report().html());
    let page = Chromium::find().open(&site, REPORT, &["--dump-dom"]);
    assert_eq!(site.requests(), [format!("GET {REPORT}")], "{}", page.stderr);
    for expected in ["<th scope=\"row\">fused-f16</th>", "<svg class=\"plot broad\"", "class=\"heat h1\""] {
        assert!(page.stdout.contains(expected), "{expected} is not in the page");
    }
    // If a script from the data came through, it would be an element of its own.
    assert!(!page.stdout.contains("<script"), "{}", page.stdout);
    for complaint in ["CONSOLE", "Content Security Policy", "Uncaught"] {
        assert!(!page.stderr.contains(complaint), "{}", page.stderr);
    }
}

/// Checks that requests are seen. Otherwise the test above could pass because none can be seen.
#[test]
fn what_a_page_asks_for_is_seen() {
    let site = Site::serving(
        "<!doctype html><title>x</title><img src=\"http://outside.test/pixel.png\">\
         <link rel=\"stylesheet\" href=\"https://fonts.googleapis.com/css\">",
    );
    drop(Chromium::find().open(&site, REPORT, &["--dump-dom"]));
    for expected in ["GET http://outside.test/pixel.png", "CONNECT fonts.googleapis.com:443"] {
        assert!(site.requests().iter().any(|request| request == expected), "{:?}", site.requests());
    }
}

#[test]
fn nothing_is_blank_by_day_by_night_and_on_a_phone() {
    let site = Site::serving(&sample::rich().report().html());
    let chromium = Chromium::find();
    for (name, width, colours) in [("light", 1200, 1), ("dark", 1200, 0), ("phone", 390, 1)] {
        let (measured, height) = measure(&chromium, &site, width);
        let scheme = format!("--blink-settings=preferredColorScheme={colours}");
        let bytes = chromium.picture(&site, &Site::framed(width, height), (width.max(600), height), &scheme);
        let picture = Picture::decode(&bytes);
        for (part, least) in PARTS {
            let rectangle = measured.iter().find(|(selector, _)| selector == part).unwrap().1;
            let colours = picture.colours(rectangle);
            assert!(colours >= least, "{name}: {part} has {colours} colours in {rectangle:?}");
        }
        let paper = picture.pixel(2, 2);
        let is_dark = paper.iter().all(|channel| *channel < 64);
        assert_eq!(is_dark, name == "dark", "{name}: the paper is {paper:?}");
    }
}

#[test]
fn a_phone_scrolls_down_and_never_sideways() {
    let chromium = Chromium::find();
    for sample in [sample::plain(), sample::rich(), sample::texts(), sample::sweep()] {
        let site = Site::serving(&sample.report().html());
        // `measure` checks the width and the names.
        let _ = measure(&chromium, &site, 390);
    }
}

/// Opens the page in a frame of this width. Checks that it fits, and that no name in the plot covers another. Returns where its visible parts are, and how high the page is.
fn measure(chromium: &Chromium, site: &Site, width: u32) -> (Vec<(String, Rectangle)>, u32) {
    let page = chromium.open(site, &Site::framed(width, 2000), &["--dump-dom"]);
    let found =
        page.stdout.split("<pre id=\"measured\">").nth(1).unwrap_or_else(|| panic!("{}", page.stderr));
    let measured: Value = serde_json::from_str(found.split("</pre>").next().unwrap()).unwrap();
    assert_eq!(measured["width"], width, "the page is wider than its frame of {width}");
    assert_eq!(measured["collisions"], 0, "names cover each other in the plot at {width}");
    let parts = measured["parts"].as_object().unwrap().iter();
    let parts = parts
        .map(|(selector, rectangle)| (selector.clone(), serde_json::from_value(rectangle.clone()).unwrap()));
    (parts.collect(), u32::try_from(measured["height"].as_u64().unwrap()).unwrap())
}
