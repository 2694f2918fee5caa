//! A map that is cheap to copy and to change, however much is in it.
//!
//! Whoever reads the routing table holds one copy of it while the next one is made. A copy shares
//! everything with the first; a change copies the one part, of [`SHARDS`], that it falls into.

use std::collections::HashMap;
use std::hash::Hash;
use std::net::IpAddr;
use std::sync::Arc;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::Id;

/// Parts of a map. A change copies what is in one of them and the list of all: with 100,000
/// entries 390 pointers and 256.
const SHARDS: usize = 256;

/// A key that says which part of a map it falls into.
pub trait Key: Eq + Hash {
    fn shard(&self) -> u8;
}

impl Key for Id {
    /// Ids are random bits, all of them.
    fn shard(&self) -> u8 {
        self.0[11]
    }
}

impl Key for IpAddr {
    /// Addresses of one network differ at their end.
    fn shard(&self) -> u8 {
        match self {
            IpAddr::V4(address) => address.octets()[3],
            IpAddr::V6(address) => address.octets()[15],
        }
    }
}

impl Key for str {
    /// FNV-1a, folded. A part is never trusted to be small: its entries are hashed once more.
    fn shard(&self) -> u8 {
        let hash = self.bytes().fold(0x811c_9dc5_u32, |hash, byte| {
            (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193)
        });
        hash.to_le_bytes()
            .into_iter()
            .fold(0, |all, byte| all ^ byte)
    }
}

impl Key for Box<str> {
    fn shard(&self) -> u8 {
        str::shard(self)
    }
}

/// The map.
#[derive(Debug, Clone)]
pub struct Shards<K, V> {
    parts: Arc<Vec<Arc<HashMap<K, V>>>>,
    length: usize,
}

impl<K, V> Default for Shards<K, V> {
    fn default() -> Self {
        let part = Arc::new(HashMap::new());
        Shards {
            parts: Arc::new(vec![part; SHARDS]),
            length: 0,
        }
    }
}

impl<K: Key + Clone, V: Clone> Shards<K, V> {
    fn part(&mut self, shard: u8) -> &mut HashMap<K, V> {
        Arc::make_mut(&mut Arc::make_mut(&mut self.parts)[usize::from(shard)])
    }

    pub fn insert(&mut self, key: K, value: V) -> Option<V> {
        let before = self.part(key.shard()).insert(key, value);
        self.length += usize::from(before.is_none());
        before
    }

    pub fn remove<Q: Key + ?Sized>(&mut self, key: &Q) -> Option<V>
    where
        K: std::borrow::Borrow<Q>,
    {
        // What is not there costs no copy.
        self.get(key)?;
        let before = self.part(key.shard()).remove(key);
        self.length -= usize::from(before.is_some());
        before
    }
}

impl<K: Key, V> Shards<K, V> {
    pub fn get<Q: Key + ?Sized>(&self, key: &Q) -> Option<&V>
    where
        K: std::borrow::Borrow<Q>,
    {
        self.parts[usize::from(key.shard())].get(key)
    }

    pub fn contains_key<Q: Key + ?Sized>(&self, key: &Q) -> bool
    where
        K: std::borrow::Borrow<Q>,
    {
        self.get(key).is_some()
    }
}

impl<K, V> Shards<K, V> {
    pub fn len(&self) -> usize {
        self.length
    }

    pub fn is_empty(&self) -> bool {
        self.length == 0
    }

    /// Everything, in no order.
    pub fn iter(&self) -> impl Iterator<Item = (&K, &V)> {
        self.parts.iter().flat_map(|part| part.iter())
    }

    pub fn keys(&self) -> impl Iterator<Item = &K> {
        self.iter().map(|(key, _)| key)
    }

    pub fn values(&self) -> impl Iterator<Item = &V> {
        self.iter().map(|(_, value)| value)
    }
}

impl<K: Key, V: PartialEq> Shards<K, V> {
    /// The keys whose values are others than they were `before`, or gone, in no order. What both
    /// share is not looked into.
    pub fn changed_since<'a>(&'a self, before: &'a Self) -> impl Iterator<Item = &'a K> {
        let pairs = self.parts.iter().zip(before.parts.iter());
        let others = pairs.filter(|(ours, theirs)| !Arc::ptr_eq(ours, theirs));
        others.flat_map(|(ours, theirs)| {
            let new = ours
                .iter()
                .filter(|(key, value)| theirs.get(key) != Some(value));
            let gone = theirs.keys().filter(|key| !ours.contains_key(key));
            new.map(|(key, _)| key).chain(gone)
        })
    }
}

impl<K: Key, V: PartialEq> PartialEq for Shards<K, V> {
    fn eq(&self, other: &Self) -> bool {
        self.length == other.length
            && self
                .parts
                .iter()
                .zip(other.parts.iter())
                .all(|(ours, theirs)| Arc::ptr_eq(ours, theirs) || ours == theirs)
    }
}

impl<K: Key, V: Eq> Eq for Shards<K, V> {}

impl<K: Key, V, Q: Key + ?Sized> std::ops::Index<&Q> for Shards<K, V>
where
    K: std::borrow::Borrow<Q>,
{
    type Output = V;

    fn index(&self, key: &Q) -> &V {
        self.get(key).expect("the key is in the map")
    }
}

impl<K: Key + Clone, V: Clone> Extend<(K, V)> for Shards<K, V> {
    fn extend<T: IntoIterator<Item = (K, V)>>(&mut self, entries: T) {
        for (key, value) in entries {
            self.insert(key, value);
        }
    }
}

impl<K: Key + Clone, V: Clone> FromIterator<(K, V)> for Shards<K, V> {
    fn from_iter<T: IntoIterator<Item = (K, V)>>(entries: T) -> Self {
        let mut map = Self::default();
        map.extend(entries);
        map
    }
}

impl<K: Key + Serialize, V: Serialize> Serialize for Shards<K, V> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.iter())
    }
}

impl<'de, K, V> Deserialize<'de> for Shards<K, V>
where
    K: Key + Clone + Deserialize<'de>,
    V: Clone + Deserialize<'de>,
{
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        HashMap::<K, V>::deserialize(deserializer).map(|entries| entries.into_iter().collect())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// It is what a plain map is, and copies keep what they had.
        #[test]
        fn it_is_a_map(changes in proptest::collection::vec((0..40_u8, proptest::option::of(0..9_u8)), 0..200)) {
            let mut plain: HashMap<Box<str>, u8> = HashMap::new();
            let mut map: Shards<Box<str>, u8> = Shards::default();
            for (name, value) in changes {
                let key: Box<str> = format!("name-{name}").into();
                let (before, kept) = (map.clone(), plain.clone());
                match value {
                    Some(value) => prop_assert_eq!(map.insert(key.clone(), value), plain.insert(key, value)),
                    None => prop_assert_eq!(map.remove(&key), plain.remove(&key)),
                }
                prop_assert_eq!(before.iter().map(|(k, v)| (k.clone(), *v)).collect::<HashMap<_, _>>(), kept.clone());
                prop_assert_eq!(map.len(), plain.len());
                // What has changed is known, and nothing else.
                let told: Vec<_> = map.changed_since(&before).cloned().collect();
                let others = kept.keys().chain(plain.keys()).filter(|key| kept.get(*key) != plain.get(*key));
                let others: std::collections::HashSet<_> = others.cloned().collect();
                prop_assert_eq!(told.len(), others.len());
                prop_assert_eq!(told.into_iter().collect::<std::collections::HashSet<_>>(), others);
            }
            for name in 0..40 {
                let key = format!("name-{name}");
                prop_assert_eq!(map.get(key.as_str()), plain.get(key.as_str()));
            }
            let text = serde_json::to_string(&map).expect("JSON");
            let again: Shards<Box<str>, u8> = serde_json::from_str(&text).expect("a map");
            prop_assert_eq!(&again, &map);
            prop_assert_eq!(again, plain.into_iter().collect());
        }
    }

    #[test]
    fn a_change_copies_one_part() {
        let id = |n: u32| {
            let mut id = [0; 12];
            id[8..].copy_from_slice(&n.to_be_bytes());
            Id(id)
        };
        let mut map: Shards<Id, Arc<u32>> = (0..2560).map(|n| (id(n), Arc::new(n))).collect();
        let before = map.clone();
        map.insert(id(7), Arc::new(0));
        map.remove(&id(99_999));
        let shared = map.parts.iter().zip(before.parts.iter());
        let copied = shared.filter(|(ours, theirs)| !Arc::ptr_eq(ours, theirs));
        assert_eq!(copied.count(), 1);
        assert_eq!((before.len(), map.len()), (2560, 2560));
        assert_ne!(before, map);
    }
}
