//! `docs/conformance.md` is fresh.

use coterie_conformance::table::{render, repository};

#[test]
fn the_table_of_conformance_numbers_is_fresh() {
    let path = repository().join("docs/conformance.md");
    let page = render(&repository()).expect("read the sources");
    if std::env::var_os("UPDATE").is_some_and(|value| value == "1") {
        std::fs::write(&path, &page).expect("write the page");
    }
    let committed = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(
        committed == page,
        "docs/conformance.md is not fresh: UPDATE=1 cargo test -p coterie-conformance --test table"
    );
}
