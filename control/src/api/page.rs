//! Lists in pages: `?page=1&limit=N`, answered with `pagination`.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::text::Number;
use crate::store::Slice;

/// Which page, from 1.
pub type Page = Number<1, { u32::MAX }>;
/// How many on a page.
pub type Limit = Number<1, 100>;

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Order {
    Asc,
    Desc,
}

/// Where in a list a page is.
#[derive(Debug, Clone, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Pagination {
    pub total: u64,
    pub page: u32,
    pub limit: u32,
    pub total_pages: u64,
}

/// What a caller asked of a list.
#[derive(Debug, Clone, Copy)]
pub struct Asked {
    pub page: Option<Page>,
    pub limit: Option<Limit>,
    /// Items on a page where the caller did not say.
    pub usual: u32,
    pub column: &'static str,
    pub order: Option<Order>,
}

impl Asked {
    fn page(&self) -> u32 {
        self.page.map_or(1, |page| page.0)
    }

    fn limit(&self) -> u32 {
        self.limit.map_or(self.usual, |limit| limit.0)
    }

    /// Newest first, where the caller did not say.
    pub fn slice(&self) -> Slice {
        Slice {
            column: self.column,
            descending: self.order != Some(Order::Asc),
            limit: self.limit(),
            offset: u64::from(self.page() - 1) * u64::from(self.limit()),
        }
    }

    pub fn pagination(&self, total: u64) -> Pagination {
        let (page, limit) = (self.page(), self.limit());
        Pagination {
            total,
            page,
            limit,
            total_pages: total.div_ceil(u64::from(limit)),
        }
    }

    /// The page of a list that is all in memory.
    pub fn cut<T>(&self, all: Vec<T>) -> (Vec<T>, Pagination) {
        let pagination = self.pagination(all.len() as u64);
        let slice = self.slice();
        let skip = usize::try_from(slice.offset).unwrap_or(usize::MAX);
        (
            all.into_iter()
                .skip(skip)
                .take(slice.limit as usize)
                .collect(),
            pagination,
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages_cover_a_list() {
        let asked = |page, limit| Asked {
            page: Some(Number(page)),
            limit: Some(Number(limit)),
            usual: 10,
            column: "id",
            order: None,
        };
        let all: Vec<u32> = (0..7).collect();
        assert_eq!(asked(1, 3).cut(all.clone()).0, [0, 1, 2]);
        let (last, pagination) = asked(3, 3).cut(all.clone());
        assert_eq!(last, [6]);
        assert_eq!((pagination.total, pagination.total_pages), (7, 3));
        assert!(asked(4, 3).cut(all.clone()).0.is_empty());
        assert!(asked(u32::MAX, 100).cut(all).0.is_empty());
        assert_eq!(asked(1, 3).pagination(0).total_pages, 0);
    }
}
