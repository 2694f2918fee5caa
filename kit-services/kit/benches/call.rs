//! What does a declared operation cost over a plain axum handler?

use axum::body::Body;
use axum::extract::{Path, Query};
use axum::routing::post;
use axum::{Json, Router};
use criterion::{Criterion, criterion_group, criterion_main};
use http::Request;
use kit::{Api, Call, Fault, Operation, Route};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use tower::ServiceExt;

/// Add up.
#[derive(Deserialize, JsonSchema)]
struct Add {
    id: u32,
    times: u32,
    numbers: Vec<i64>,
}

#[derive(Serialize, JsonSchema)]
struct Sum {
    id: u32,
    sum: i64,
}

impl Operation for Add {
    const ROUTE: Route = Route::post("/api/v1/sums/{id}").query(&["times"]);
    type Service = ();
    type Reply = Sum;
    async fn run(self, (): (), _: Call) -> Result<Sum, Fault> {
        Ok(Sum {
            id: self.id,
            sum: self.numbers.iter().sum::<i64>() * i64::from(self.times),
        })
    }
}

#[derive(Deserialize)]
struct Times {
    times: u32,
}

#[derive(Deserialize)]
struct Numbers {
    numbers: Vec<i64>,
}

async fn plain(
    Path(id): Path<u32>,
    Query(Times { times }): Query<Times>,
    Json(Numbers { numbers }): Json<Numbers>,
) -> Json<Sum> {
    Json(Sum {
        id,
        sum: numbers.iter().sum::<i64>() * i64::from(times),
    })
}

fn call(criterion: &mut Criterion) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .build()
        .expect("a runtime");
    let declared = Api::new("sums", "Sums.").op::<Add>(&()).router();
    let plain = Router::new().route("/api/v1/sums/{id}", post(plain));
    let mut group = criterion.benchmark_group("call");
    for (name, router) in [("declared", declared), ("plain axum", plain)] {
        group.bench_function(name, |bencher| {
            bencher.iter(|| {
                let request = Request::post("/api/v1/sums/7?times=2")
                    .header("content-type", "application/json")
                    .body(Body::from(r#"{"numbers":[1,2,3]}"#))
                    .expect("a valid request");
                runtime.block_on(async {
                    let response = router.clone().oneshot(request).await.expect("infallible");
                    assert_eq!(response.status(), 200);
                    axum::body::to_bytes(response.into_body(), 1024)
                        .await
                        .expect("a short body")
                })
            });
        });
    }
    group.finish();
}

criterion_group!(benches, call);
criterion_main!(benches);
