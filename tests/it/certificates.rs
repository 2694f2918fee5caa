//! The administrator's list of certificates.

use serde_json::json;
use tests::Rig;

use crate::wire::{Caller, text};

const LIST: &str = "/api/v1/certificates";

#[tokio::test(flavor = "multi_thread")]
async fn an_administrator_sees_the_certificates_of_the_node() {
    let rig = Rig::start().await;
    let administrator = Caller::logged_in(&rig).await;
    let list = administrator.get(LIST).await.expect(200).data();
    let rows = list.as_array().expect("a list");
    let named = |name: &str| {
        let row = rows.iter().find(|row| {
            row["names"]
                .as_array()
                .expect("names")
                .contains(&json!(name))
        });
        row.unwrap_or_else(|| panic!("nothing for {name} in {list}"))
    };
    for (name, class) in [
        (format!("api.{}", tests::rig::DOMAIN), "api"),
        (
            format!("*.{}.containers.{}", tests::rig::NODE, tests::rig::DOMAIN),
            "node",
        ),
    ] {
        let row = named(&name);
        assert_eq!(
            (&row["class"], &row["mode"], &row["expiring"]),
            (&json!(class), &json!("local"), &json!(false))
        );
        assert!(
            text(&row["next_renewal"]) < text(&row["not_after"]),
            "{row}"
        );
        assert!(row["last_error"].is_null(), "{row}");
    }
    // A token is of somebody's who may have given it away.
    rig.get(LIST).await.expect(403);
    let nobody = Caller::new(&rig, "nonsense");
    assert_eq!(nobody.get(LIST).await.status, 401);
    rig.stop().await;
}
