//! Images that containers can be made from.

use kit::{Call, Fault, Operation, Route};
use routes::Id;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::page::{Asked, Limit, Order, Page, Pagination};
use super::text::IdText;
use crate::auth::Principal;
use crate::control::Control;
use crate::runtime;
use crate::time::{self, SECOND};

#[derive(Serialize, JsonSchema)]
pub struct Image {
    id: String,
    /// What `container_image` takes.
    alias: String,
    description: String,
    image_name: String,
    architecture: &'static str,
    os: String,
    release: String,
    variant: Option<String>,
    /// Bytes.
    size: u64,
    price: f64,
    added_date: String,
    average_rating: f64,
    rating_count: u32,
    icon_url: Option<String>,
    prespawn: bool,
}

/// An image with what the caller thinks of it.
#[derive(Serialize, JsonSchema)]
pub struct MyImage {
    #[serde(flatten)]
    image: Image,
    user_rating: Option<f64>,
    has_rated: bool,
}

impl Image {
    fn of(control: &Control, image: runtime::Image) -> Image {
        let prespawn = control.prespawn.has_image(&image.name);
        let (os, release) = image.name.split_once('-').unwrap_or((&image.name, ""));
        Image {
            id: id(&image.name).to_string(),
            os: os.to_owned(),
            release: release.to_owned(),
            alias: image.name.clone(),
            image_name: image.name,
            description: image.description,
            architecture: control.host.architecture,
            variant: None,
            size: image.size,
            price: 0.0,
            added_date: time::text(image.created.saturating_mul(SECOND)),
            average_rating: 0.0,
            rating_count: 0,
            icon_url: None,
            prespawn,
        }
    }
}

/// Images are known by name; their id follows from it.
fn id(name: &str) -> Id {
    let mut bits = [0; 12];
    bits.copy_from_slice(&Sha256::digest(format!("image {name}"))[..12]);
    Id(bits)
}

async fn all(control: &Control, call: &Call) -> Result<Vec<Image>, Fault> {
    Principal::of(call)?;
    let images = control.runtime.images().await.map_err(|error| {
        tracing::warn!(error = %crate::auth::chain(&error), "could not list the images");
        Fault::unavailable("the node cannot list its images now; try again")
            .code("RUNTIME_UNAVAILABLE")
    })?;
    Ok(images
        .into_iter()
        .map(|image| Image::of(control, image))
        .collect())
}

#[derive(Deserialize, JsonSchema, Clone, Copy, PartialEq)]
#[serde(rename_all = "snake_case")]
enum SortBy {
    Alias,
    AddedDate,
    Price,
    Rating,
}

/// The images of this node.
#[derive(Deserialize, JsonSchema)]
pub struct ListPublic {
    /// Operating system, such as debian.
    os: Option<String>,
    /// Processor, such as amd64.
    architecture: Option<String>,
    /// Words of the name or description.
    search: Option<String>,
    min_price: Option<f64>,
    min_rating: Option<f64>,
    page: Option<Page>,
    /// Images on a page; 20 where not named.
    limit: Option<Limit>,
    sort_by: Option<SortBy>,
    sort_order: Option<Order>,
}

#[derive(Serialize, JsonSchema)]
pub struct Images {
    images: Vec<Image>,
    pagination: Pagination,
}

impl Operation for ListPublic {
    const ROUTE: Route = Route::get("/api/v1/images/public")
        .named("listPublicImages")
        .cli("images list");
    type Service = Control;
    type Reply = Images;

    async fn run(self, control: Control, call: Call) -> Result<Images, Fault> {
        let mut images = all(&control, &call).await?;
        let search = self.search.map(|text| text.to_lowercase());
        images.retain(|image| {
            self.os.as_ref().is_none_or(|os| *os == image.os)
                && self
                    .architecture
                    .as_ref()
                    .is_none_or(|wanted| wanted == image.architecture)
                && self.min_price.is_none_or(|least| least <= image.price)
                && self
                    .min_rating
                    .is_none_or(|least| least <= image.average_rating)
                && search.as_ref().is_none_or(|words| {
                    image.alias.contains(words) || image.description.to_lowercase().contains(words)
                })
        });
        match self.sort_by {
            Some(SortBy::AddedDate) => images.sort_by(|a, b| a.added_date.cmp(&b.added_date)),
            _ => images.sort_by(|a, b| a.alias.cmp(&b.alias)),
        }
        if self.sort_order == Some(Order::Desc) {
            images.reverse();
        }
        let asked = Asked {
            page: self.page,
            limit: self.limit,
            usual: 20,
            column: "",
            order: None,
        };
        let (images, pagination) = asked.cut(images);
        Ok(Images { images, pagination })
    }
}

/// One image.
#[derive(Deserialize, JsonSchema)]
pub struct GetPublic {
    id: IdText,
}

impl Operation for GetPublic {
    const ROUTE: Route = Route::get("/api/v1/images/public/{id}")
        .named("getPublicImageDetails")
        .cli("images get");
    type Service = Control;
    type Reply = Image;

    async fn run(self, control: Control, call: Call) -> Result<Image, Fault> {
        let wanted = self.id.0.to_string();
        let images = all(&control, &call).await?;
        images
            .into_iter()
            .find(|image| image.id == wanted)
            .ok_or_else(|| {
                Fault::not_found(format!(
                    "no image {wanted}; list them with `hoody images list`"
                ))
                .code("NOT_FOUND")
            })
    }
}

/// The images the caller may use: those of this node.
#[derive(Deserialize, JsonSchema)]
pub struct ListMine {
    page: Option<Page>,
    /// Images on a page; 20 where not named.
    limit: Option<Limit>,
    sort_order: Option<Order>,
}

#[derive(Serialize, JsonSchema)]
pub struct MyImages {
    images: Vec<MyImage>,
    pagination: Pagination,
}

impl Operation for ListMine {
    const ROUTE: Route = Route::get("/api/v1/images/user")
        .named("listUserImages")
        .cli("images mine");
    type Service = Control;
    type Reply = MyImages;

    async fn run(self, control: Control, call: Call) -> Result<MyImages, Fault> {
        let mut images = all(&control, &call).await?;
        images.sort_by(|a, b| b.added_date.cmp(&a.added_date));
        if self.sort_order == Some(Order::Asc) {
            images.reverse();
        }
        let asked = Asked {
            page: self.page,
            limit: self.limit,
            usual: 20,
            column: "",
            order: None,
        };
        let (images, pagination) = asked.cut(images);
        let images = images.into_iter().map(|image| MyImage {
            image,
            user_rating: None,
            has_rated: false,
        });
        Ok(MyImages {
            images: images.collect(),
            pagination,
        })
    }
}
