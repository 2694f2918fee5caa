//! Custom domains: names of other people's that DNS leads to an alias of this node.
//!
//! ```text
//! shop.example.com        CNAME  my-shop.node-1.containers.DOMAIN     directly, or over others
//!
//! example.com             ALIAS  my-shop.node-1.containers.DOMAIN     where no CNAME can be: the
//! _hoody.example.com      CNAME  my-shop.node-1.containers.DOMAIN     same addresses, and the word
//! ```
//!
//! Whoever writes the records of a name decides where it leads; an alias is a public name, and all
//! that it protects protects it under any other name. Addresses alone name no alias, as all of a
//! node share theirs: so a name without a CNAME has to say which it means, and to have no addresses
//! but those of the alias.
//!
//! What DNS says is remembered as the *name* of an alias. Where that leads, the table says at every
//! request: an alias that is switched off is off at once.
//!
//! Anybody may send any name. So a name that is not known costs its sender something ([`Paces`]),
//! all lookups together are bounded, each has a deadline, many requests for one name ask once, and
//! what leads nowhere is remembered apart from what leads here, which it cannot push out. An answer
//! that has lapsed goes on to be used for a while when no DNS server answers.

use std::collections::{HashMap, HashSet};
use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::num::NonZeroUsize;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use hickory_resolver::TokioResolver;
use hickory_resolver::config::{ConnectionConfig, NameServerConfig, ResolveHosts, ResolverConfig};
use hickory_resolver::net::runtime::TokioRuntimeProvider;
use hickory_resolver::net::{DnsError, NetError};
use hickory_resolver::proto::op::ResponseCode;
use hickory_resolver::proto::rr::{Name as DnsName, RData, Record, RecordType};
use lru::LruCache;
use prometheus::IntCounterVec;
use routes::Zone;
use routes::address::{Address, Label, Name, Rejection};
use routes::domain;
use routes::table::{Place, Table};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, watch};
use tokio::time::timeout;

use crate::config::Resolvers;
use crate::limits;
use crate::resolve::{Destination, resolve};

/// What stands before a name that has no CNAME record, for the one that says which alias it means.
pub const MARK: &str = "_hoody";

/// Records that are followed from one name to the next. Resolvers follow 8 to 16.
const LINKS: usize = 8;
/// Addresses of one name that are looked at; who has more is no single node.
const ADDRESSES: usize = 32;
/// A lookup, all of its questions together.
const DEADLINE: Duration = Duration::from_secs(5);
/// One question to one server, and how often it is repeated.
const QUESTION: Duration = Duration::from_secs(2);
const ATTEMPTS: usize = 2;
/// Lookups at once.
const LOOKUPS: usize = 64;

/// Names that lead to an alias and are remembered; those not asked for longest are forgotten first.
const LED: usize = 16_384;
/// Names that lead nowhere and are remembered.
const OTHERS: usize = 4_096;
/// How long an answer is good, whatever its records say: so that a change is seen soon, and no
/// records can make this node ask all the time.
const FRESH: std::ops::RangeInclusive<Duration> =
    Duration::from_secs(30)..=Duration::from_secs(600);
/// After that it is used while it is asked for anew, unless it has not been used for this long.
const LAPSED: Duration = Duration::from_secs(600);
/// Where no server answers, the last answer is used for this long after it was good.
const STALE: Duration = Duration::from_secs(24 * 3600);
/// A name that leads nowhere is asked for again after this: somebody may just be setting it up.
const NOWHERE: Duration = Duration::from_secs(30);
/// The same where no server answered.
const AGAIN: Duration = Duration::from_secs(10);

/// Unknown names of one client: so many at once, then one in two seconds.
const CLIENT: Pace = Pace {
    burst: 30,
    every: Duration::from_secs(2),
};
/// Of all clients: fifty a second, for somebody with many addresses.
const ALL: Pace = Pace {
    burst: 300,
    every: Duration::from_millis(20),
};
/// Clients that are counted. Who is forgotten has not asked for longest.
const CLIENTS: usize = 16_384;

/// Why a name leads to no alias.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NotLed {
    /// It is not asked for: it cannot be a custom domain, or this node has none.
    #[error("the name cannot be a custom domain of this node")]
    NotAsked,
    #[error("the name has no CNAME record")]
    NoRecord,
    /// The last name that its records lead to, which is of another domain.
    #[error("the name leads to `{0}`, which is no alias of this node")]
    Elsewhere(Box<str>),
    #[error("the name leads to a name of this node that is no alias")]
    NotAnAlias,
    /// Its mark names an alias, and its addresses are others.
    #[error("the name has other addresses than the alias that `{MARK}` before it names")]
    OtherAddresses,
    #[error("the records of the name lead in a circle, or too far")]
    Endless,
    #[error("the name has several CNAME records, which leaves open what they mean")]
    Unclear,
    /// It leads to the name of an alias, and there is none, or none that is in force.
    #[error("the name leads to an alias that is not there")]
    NoAlias,
    #[error("no DNS server has answered")]
    Unanswered,
    #[error("too many names are being looked up")]
    Busy,
    #[error("too many unknown names were asked for; wait {0} s")]
    TooMany(u32),
}

impl NotLed {
    /// A stable name for metrics.
    fn result(&self) -> &'static str {
        match self {
            NotLed::NotAsked => "not_asked",
            NotLed::NoRecord => "no_record",
            NotLed::Elsewhere(_) => "elsewhere",
            NotLed::NotAnAlias => "not_an_alias",
            NotLed::OtherAddresses => "other_addresses",
            NotLed::Endless => "endless",
            NotLed::Unclear => "unclear",
            NotLed::NoAlias => "no_alias",
            NotLed::Unanswered => "unanswered",
            NotLed::Busy => "busy",
            NotLed::TooMany(_) => "limited",
        }
    }
}

/// What DNS says of a name: the alias that it leads to.
type Said = Result<Label, NotLed>;

/// The names of other people's that lead here. A handle: copies are of the same.
#[derive(Clone)]
pub struct Domains(Arc<Inner>);

/// Tells whether there is a certificate for a name.
type Certified = Box<dyn Fn(&str) -> bool + Send + Sync>;

struct Inner {
    zone: Zone,
    table: Arc<ArcSwap<Table>>,
    memory: Mutex<Memory>,
    paces: Mutex<Paces>,
    room: Arc<Semaphore>,
    /// To [`Lookups::run`]; nothing where no names are looked up.
    asks: Option<mpsc::Sender<Ask>>,
    /// Whether there is a certificate for a name, as far as somebody has said how to tell.
    certified: OnceLock<Certified>,
    lookups: IntCounterVec,
}

/// A name that is to be looked up.
struct Ask {
    name: Box<str>,
    tell: watch::Sender<Option<Said>>,
    permit: OwnedSemaphorePermit,
}

/// Does the lookups, on the runtime that it is run on.
pub struct Lookups {
    domains: Domains,
    asks: mpsc::Receiver<Ask>,
    resolver: TokioResolver,
}

/// The DNS servers cannot be asked.
#[derive(Debug, thiserror::Error)]
#[error("could not set up the lookup of custom domains")]
pub struct NoResolver(#[source] NetError);

impl Domains {
    /// The domains of a zone, and what has to run for them, if any names are to be looked up.
    pub fn new(
        resolvers: &Resolvers,
        zone: Zone,
        table: Arc<ArcSwap<Table>>,
        lookups: IntCounterVec,
    ) -> Result<(Domains, Option<Lookups>), NoResolver> {
        let resolver = resolver(resolvers).map_err(NoResolver)?;
        let (asks, asked) = mpsc::channel(LOOKUPS);
        let domains = Domains(Arc::new(Inner {
            zone,
            table,
            memory: Mutex::new(Memory::new()),
            paces: Mutex::new(Paces::new()),
            room: Arc::new(Semaphore::new(LOOKUPS)),
            asks: resolver.is_some().then_some(asks),
            certified: OnceLock::new(),
            lookups,
        }));
        let lookups = resolver.map(|resolver| Lookups {
            domains: domains.clone(),
            asks: asked,
            resolver,
        });
        Ok((domains, lookups))
    }

    /// Whether this name may be looked up at all.
    pub fn may_lead(&self, name: &Name) -> bool {
        self.0.asks.is_some() && domain::may_be_custom(name, &self.0.zone)
    }

    /// The name of the alias that a name leads to. `client` is who asks, and pays for what is not
    /// known.
    pub async fn alias(&self, name: &Name, client: Option<IpAddr>) -> Result<Label, NotLed> {
        if !self.may_lead(name) {
            return Err(NotLed::NotAsked);
        }
        let name = name.as_str();
        let now = Instant::now();
        let mut told = {
            let mut memory = self.memory();
            match memory.recall(name, now) {
                Recall::Known(said) => return said,
                Recall::Asked(told) => told,
                Recall::Old(alias) => {
                    // It is asked for again with the next request where there is no room.
                    let _ = self.ask(&mut memory, name);
                    return Ok(alias);
                }
                Recall::Lapsed(alias) => match self.ask(&mut memory, name) {
                    Ok(told) => told,
                    Err(_) => return Ok(alias),
                },
                Recall::Nothing => self
                    .paces()
                    .take(client, now)
                    .and_then(|()| self.ask(&mut memory, name))
                    .inspect_err(|why| self.count(why.result()))?,
            }
        };
        // The lookup has a deadline of its own.
        match told.wait_for(Option::is_some).await {
            Ok(said) => said.clone().unwrap_or(Err(NotLed::Unanswered)),
            Err(_) => Err(NotLed::Unanswered),
        }
    }

    /// Where a name leads that somebody wants a certificate for: the place of the alias, only
    /// while that is in force. Whoever orders certificates asks this first.
    pub async fn entitled(&self, name: &str, client: Option<IpAddr>) -> Result<Arc<Place>, NotLed> {
        let name = Name::parse(name).map_err(|_| NotLed::NotAsked)?;
        let alias = self.alias(&name, client).await?;
        let now = || jiff::Timestamp::now().as_millisecond();
        match resolve(&Address::Alias(alias), &self.0.table.load(), now) {
            Ok(Destination::Kit { place, .. }) => Ok(place),
            _ => Err(NotLed::NoAlias),
        }
    }

    /// Say how to tell whether there is a certificate for a name. Until then there is taken to be
    /// one for every name.
    pub fn certified_by(&self, certified: impl Fn(&str) -> bool + Send + Sync + 'static) {
        // Who says it first has said it.
        let _ = self.0.certified.set(Box::new(certified));
    }

    /// Whether a name can be served over TLS.
    pub fn is_certified(&self, name: &str) -> bool {
        self.0
            .certified
            .get()
            .is_none_or(|certified| certified(name))
    }

    /// Have a name looked up.
    fn ask(
        &self,
        memory: &mut Memory,
        name: &str,
    ) -> Result<watch::Receiver<Option<Said>>, NotLed> {
        let asks = self.0.asks.as_ref().ok_or(NotLed::NotAsked)?;
        let permit = self.0.room.clone().try_acquire_owned();
        let permit = permit.map_err(|_| NotLed::Busy)?;
        let (tell, told) = watch::channel(None);
        let name: Box<str> = name.into();
        let ask = Ask {
            name: name.clone(),
            tell,
            permit,
        };
        // As many fit as there are permits: it only fails where the proxy ends.
        asks.try_send(ask).map_err(|_| NotLed::Busy)?;
        memory.asked.insert(name, told.clone());
        Ok(told)
    }

    fn count(&self, result: &str) {
        self.0.lookups.with_label_values(&[result]).inc();
    }

    fn memory(&self) -> MutexGuard<'_, Memory> {
        self.0.memory.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn paces(&self) -> MutexGuard<'_, Paces> {
        self.0.paces.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Domains {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Domains").finish_non_exhaustive()
    }
}

impl Lookups {
    /// Look up what is asked for, until nobody can ask any more.
    pub async fn run(self) {
        let Lookups {
            domains,
            mut asks,
            resolver,
        } = self;
        let resolver = Arc::new(resolver);
        while let Some(Ask { name, tell, permit }) = asks.recv().await {
            let (domains, resolver) = (domains.clone(), resolver.clone());
            tokio::spawn(async move {
                let look = Look {
                    zone: &domains.0.zone,
                    resolver: &resolver,
                };
                let found = timeout(DEADLINE, Box::pin(look.alias(&name))).await;
                let found = found.unwrap_or_else(|_| Found::none(NotLed::Unanswered));
                domains.count(match &found.said {
                    Ok(_) => "alias",
                    Err(why) => why.result(),
                });
                let said = domains.memory().learn(&name, found, Instant::now());
                tell.send_replace(Some(said));
                drop(permit);
            });
        }
    }
}

fn resolver(resolvers: &Resolvers) -> Result<Option<TokioResolver>, NetError> {
    let provider = TokioRuntimeProvider::default;
    let mut builder = match resolvers {
        Resolvers::Off => return Ok(None),
        Resolvers::System => TokioResolver::builder(provider())?,
        Resolvers::At(addresses) => {
            let servers = addresses.iter().map(|address| server(*address)).collect();
            let config = ResolverConfig::from_parts(None, vec![], servers);
            TokioResolver::builder_with_config(config, provider())
        }
    };
    let options = builder.options_mut();
    options.timeout = QUESTION;
    options.attempts = ATTEMPTS;
    options.edns0 = true;
    // A lookup asks one thing at a time, of which some may be left over from another that ended.
    options.max_active_requests = 2 * LOOKUPS;
    options.use_hosts_file = ResolveHosts::Never;
    // What is remembered is remembered here, with bounds of its own.
    options.cache_size = 0;
    options.preserve_intermediates = true;
    Ok(Some(builder.build()?))
}

fn server(address: SocketAddr) -> NameServerConfig {
    let connections = [ConnectionConfig::udp(), ConnectionConfig::tcp()].map(|mut connection| {
        connection.port = address.port();
        connection
    });
    NameServerConfig::new(address.ip(), true, connections.into())
}

/// What a lookup has come to, and for how long that is good as its records say.
#[derive(Debug)]
struct Found {
    said: Said,
    good: Duration,
}

impl Found {
    fn none(why: NotLed) -> Found {
        Found {
            said: Err(why),
            good: Duration::ZERO,
        }
    }
}

/// One lookup.
struct Look<'a> {
    zone: &'a Zone,
    resolver: &'a TokioResolver,
}

/// Where the records of a name end.
enum End {
    Alias(Label),
    /// At a name that has no CNAME record.
    Name(DnsName),
}

impl Look<'_> {
    async fn alias(&self, name: &str) -> Found {
        let mut good = *FRESH.end();
        match self.lead(name, &mut good).await {
            Ok(alias) => Found {
                said: Ok(alias),
                good,
            },
            Err(why) => Found::none(why),
        }
    }

    async fn lead(&self, name: &str, good: &mut Duration) -> Said {
        let first = dns_name(name).ok_or(NotLed::NoRecord)?;
        let last = match self.follow(first.clone(), good).await? {
            End::Alias(alias) => return Ok(alias),
            End::Name(last) => last,
        };
        let nothing = || match last == first {
            true => NotLed::NoRecord,
            false => NotLed::Elsewhere(text(&last).into()),
        };
        // A name that is as long as names can be has nothing before it.
        let mark = last.prepend_label(MARK).map_err(|_| nothing())?;
        let alias = match self.follow(mark.clone(), good).await? {
            End::Alias(alias) => alias,
            End::Name(end) if end == mark => return Err(nothing()),
            End::Name(end) => return Err(NotLed::Elsewhere(text(&end).into())),
        };
        let host = Address::Alias(alias).host(self.zone).to_string();
        let host = dns_name(&host).ok_or(NotLed::OtherAddresses)?;
        let own = self.addresses(&last, good).await?;
        let right = self.addresses(&host, good).await?;
        match !own.is_empty() && own.is_subset(&right) {
            true => Ok(alias),
            false => Err(NotLed::OtherAddresses),
        }
    }

    /// Follow CNAME records to an alias, or to where they end.
    async fn follow(&self, mut name: DnsName, good: &mut Duration) -> Result<End, NotLed> {
        for _ in 0..LINKS {
            let Some(target) = self.target(&name, good).await? else {
                return Ok(End::Name(name));
            };
            match Address::parse(&text(&target), self.zone) {
                Ok(Address::Alias(alias)) => return Ok(End::Alias(alias)),
                // A container's own name is its key: it is not to be in anybody's records.
                Ok(_) => return Err(NotLed::NotAnAlias),
                // Names of DNS may have underscores, and go on to ones that have none.
                Err(Rejection::ForeignDomain | Rejection::BadCharacter | Rejection::BadLabel) => {
                    // What the servers know beside the public DNS is nobody's business.
                    if !self.is_public(&text(&target)) {
                        return Err(NotLed::Elsewhere(text(&target).into()));
                    }
                    name = target;
                }
                Err(_) => return Err(NotLed::NotAnAlias),
            }
        }
        Err(NotLed::Endless)
    }

    /// Whether somebody could own a name of DNS, by its last two labels.
    fn is_public(&self, name: &str) -> bool {
        let mut dots = name.rmatch_indices('.').map(|(at, _)| at + 1);
        let tail = dots.nth(1).map_or(name, |at| &name[at..]);
        Name::parse(tail).is_ok_and(|tail| domain::may_be_custom(&tail, self.zone))
    }

    /// What the CNAME record of a name says, if it has one.
    async fn target(&self, name: &DnsName, good: &mut Duration) -> Result<Option<DnsName>, NotLed> {
        let mut target = None;
        for record in self.records(name, RecordType::CNAME).await? {
            let RData::CNAME(said) = &record.data else {
                continue;
            };
            if record.name != *name {
                continue;
            }
            let said = said.0.to_lowercase();
            match &target {
                Some(other) if *other != said => return Err(NotLed::Unclear),
                _ => target = Some(said),
            }
            shorten(good, &record);
        }
        Ok(target)
    }

    /// Every address of a name.
    async fn addresses(
        &self,
        name: &DnsName,
        good: &mut Duration,
    ) -> Result<HashSet<IpAddr>, NotLed> {
        let mut all = HashSet::new();
        for kind in [RecordType::A, RecordType::AAAA] {
            for record in self.records(name, kind).await? {
                let address = match &record.data {
                    RData::A(address) => IpAddr::V4(address.0),
                    RData::AAAA(address) => IpAddr::V6(address.0),
                    _ => continue,
                };
                all.insert(address);
                shorten(good, &record);
                if all.len() > ADDRESSES {
                    return Err(NotLed::OtherAddresses);
                }
            }
        }
        Ok(all)
    }

    /// The records of an answer; none where there are none.
    async fn records(&self, name: &DnsName, kind: RecordType) -> Result<Vec<Record>, NotLed> {
        match self.resolver.lookup(name.clone(), kind).await {
            Ok(lookup) => Ok(lookup.answers().to_vec()),
            Err(NetError::Dns(DnsError::NoRecordsFound(none)))
                if matches!(
                    none.response_code,
                    ResponseCode::NoError | ResponseCode::NXDomain
                ) =>
            {
                Ok(Vec::new())
            }
            Err(_) => Err(NotLed::Unanswered),
        }
    }
}

fn shorten(good: &mut Duration, record: &Record) {
    *good = (*good).min(Duration::from_secs(record.ttl.into()));
}

/// A name with its end, so that no search list is added to it.
fn dns_name(name: &str) -> Option<DnsName> {
    DnsName::from_ascii(format!("{name}.")).ok()
}

/// A name as hostnames are written.
fn text(name: &DnsName) -> String {
    let text = name.to_ascii();
    text.strip_suffix('.').unwrap_or(&text).to_owned()
}

/// What was found out, and what is being found out.
struct Memory {
    led: LruCache<Box<str>, Led>,
    others: LruCache<Box<str>, Other>,
    /// Lookups under way: as many as there are permits.
    asked: HashMap<Box<str>, watch::Receiver<Option<Said>>>,
}

/// A name that leads to an alias.
struct Led {
    alias: Label,
    /// When it is to be asked for anew.
    fresh: Instant,
    /// When it is worth nothing, even where no server answers.
    dead: Instant,
}

/// A name that does not.
struct Other {
    why: NotLed,
    until: Instant,
}

/// What is known of a name.
enum Recall {
    Known(Said),
    /// It is being asked for.
    Asked(watch::Receiver<Option<Said>>),
    /// Known, and to be asked for anew meanwhile.
    Old(Label),
    /// Known so long ago that it is to be asked for anew first.
    Lapsed(Label),
    Nothing,
}

impl Memory {
    fn new() -> Memory {
        let of = |size| NonZeroUsize::new(size).expect("the bounds are not zero");
        Memory {
            led: LruCache::new(of(LED)),
            others: LruCache::new(of(OTHERS)),
            asked: HashMap::new(),
        }
    }

    fn recall(&mut self, name: &str, now: Instant) -> Recall {
        // A lookup that was given up has told nobody.
        let asked = self.asked.get(name);
        let asked = asked.filter(|told| told.has_changed().is_ok());
        let led = self.led.get(name).filter(|led| now < led.dead);
        if let Some(led) = led {
            if now < led.fresh {
                return Recall::Known(Ok(led.alias));
            }
            let old = now < led.fresh + LAPSED;
            return match (asked, old) {
                (Some(_), true) => Recall::Known(Ok(led.alias)),
                (Some(told), false) => Recall::Asked(told.clone()),
                (None, true) => Recall::Old(led.alias),
                (None, false) => Recall::Lapsed(led.alias),
            };
        }
        if let Some(told) = asked {
            return Recall::Asked(told.clone());
        }
        match self.others.get(name).filter(|other| now < other.until) {
            Some(other) => Recall::Known(Err(other.why.clone())),
            None => Recall::Nothing,
        }
    }

    /// A lookup is over. What is told of it.
    fn learn(&mut self, name: &str, found: Found, now: Instant) -> Said {
        self.asked.remove(name);
        let why = match found.said {
            Ok(alias) => {
                let fresh = now + found.good.clamp(*FRESH.start(), *FRESH.end());
                let dead = fresh + STALE;
                self.others.pop(name);
                self.led.put(name.into(), Led { alias, fresh, dead });
                return Ok(alias);
            }
            Err(why) => why,
        };
        let mut until = now + NOWHERE;
        if why == NotLed::Unanswered {
            if let Some(led) = self.led.get_mut(name).filter(|led| now < led.dead) {
                led.fresh = now + AGAIN;
                return Ok(led.alias);
            }
            until = now + AGAIN;
        }
        self.led.pop(name);
        let other = Other {
            why: why.clone(),
            until,
        };
        self.others.put(name.into(), other);
        Err(why)
    }
}

/// How often something may be done: so many times at once, then once in a while.
#[derive(Debug, Clone, Copy)]
struct Pace {
    burst: u32,
    every: Duration,
}

impl Pace {
    /// When all that was done is paid for, if it may be done once more now.
    fn next(self, paid: Option<Instant>, now: Instant) -> Result<Instant, NotLed> {
        let paid = paid.map_or(now, |paid| paid.max(now));
        let wait = paid.saturating_duration_since(now + self.every * (self.burst - 1));
        match wait.is_zero() {
            true => Ok(paid + self.every),
            false => Err(NotLed::TooMany(wait.as_secs() as u32 + 1)),
        }
    }
}

/// Who has asked for how many unknown names of late.
struct Paces {
    clients: LruCache<IpAddr, Instant>,
    all: Option<Instant>,
}

impl Paces {
    fn new() -> Paces {
        Paces {
            clients: LruCache::new(NonZeroUsize::new(CLIENTS).expect("the bound is not zero")),
            all: None,
        }
    }

    fn take(&mut self, client: Option<IpAddr>, now: Instant) -> Result<(), NotLed> {
        let client = client.map(limits::key);
        let paid = match client {
            Some(client) => Some(CLIENT.next(self.clients.get(&client).copied(), now)?),
            None => None,
        };
        let all = ALL.next(self.all, now).map_err(|_| NotLed::Busy)?;
        self.all = Some(all);
        if let (Some(client), Some(paid)) = (client, paid) {
            self.clients.put(client, paid);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn label(name: &str) -> Label {
        let zone = Zone::new("hoody.example.com", "box1").expect("a zone");
        match Address::parse(&format!("{name}.box1.containers.hoody.example.com"), &zone) {
            Ok(Address::Alias(label)) => label,
            other => panic!("{other:?}"),
        }
    }

    fn led(alias: &str, seconds: u64) -> Found {
        Found {
            said: Ok(label(alias)),
            good: Duration::from_secs(seconds),
        }
    }

    /// What is known, in a word.
    fn word(memory: &mut Memory, name: &str, now: Instant) -> String {
        match memory.recall(name, now) {
            Recall::Known(Ok(alias)) => format!("known {alias}"),
            Recall::Known(Err(why)) => format!("not {}", why.result()),
            Recall::Asked(_) => "asked".into(),
            Recall::Old(alias) => format!("old {alias}"),
            Recall::Lapsed(alias) => format!("lapsed {alias}"),
            Recall::Nothing => "nothing".into(),
        }
    }

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn an_answer_is_good_for_a_while_and_then_used_while_it_is_asked_for_anew() {
        let (mut memory, now) = (Memory::new(), Instant::now());
        let name = "shop.example.net";
        assert_eq!(word(&mut memory, name, now), "nothing");
        assert_eq!(memory.learn(name, led("shop", 60), now), Ok(label("shop")));
        let good = now + 60 * SECOND;
        assert_eq!(word(&mut memory, name, good - SECOND), "known shop");
        assert_eq!(word(&mut memory, name, good), "old shop");
        assert_eq!(word(&mut memory, name, good + LAPSED), "lapsed shop");
        assert_eq!(word(&mut memory, name, good + STALE), "nothing");
        // While it is asked for, it is asked for once.
        let (_tell, told) = watch::channel(None);
        memory.asked.insert(name.into(), told);
        assert_eq!(word(&mut memory, name, good), "known shop");
        assert_eq!(word(&mut memory, name, good + LAPSED), "asked");
        // Records can ask for neither too little nor too much.
        for (says, seconds) in [(0, 30), (30, 30), (300, 300), (u64::from(u32::MAX), 600)] {
            let _ = memory.learn(name, led("shop", says), now);
            let last = now + Duration::from_secs(seconds) - SECOND;
            assert_eq!(word(&mut memory, name, last), "known shop", "{says}");
            assert_eq!(word(&mut memory, name, last + SECOND), "old shop", "{says}");
        }
    }

    #[test]
    fn the_last_answer_is_used_where_no_server_answers_and_not_where_one_does() {
        let (mut memory, now) = (Memory::new(), Instant::now());
        let name = "shop.example.net";
        let _ = memory.learn(name, led("shop", 60), now);
        let later = now + 60 * SECOND + LAPSED;
        let silent = || Found::none(NotLed::Unanswered);
        assert_eq!(memory.learn(name, silent(), later), Ok(label("shop")));
        assert_eq!(word(&mut memory, name, later), "known shop");
        assert_eq!(word(&mut memory, name, later + AGAIN), "old shop");
        // However often it is tried, the answer does not become younger.
        let dead = now + 60 * SECOND + STALE;
        let _ = memory.learn(name, silent(), dead - SECOND);
        assert_eq!(word(&mut memory, name, dead - SECOND), "known shop");
        assert_eq!(word(&mut memory, name, dead), "nothing");
        assert_eq!(memory.learn(name, silent(), dead), Err(NotLed::Unanswered));
        assert_eq!(word(&mut memory, name, dead), "not unanswered");
        assert_eq!(word(&mut memory, name, dead + AGAIN), "nothing");

        let _ = memory.learn(name, led("shop", 60), now);
        let gone = Found::none(NotLed::NoRecord);
        assert_eq!(memory.learn(name, gone, now), Err(NotLed::NoRecord));
        assert_eq!(word(&mut memory, name, now), "not no_record");
        assert_eq!(word(&mut memory, name, now + NOWHERE), "nothing");
        // And it comes back.
        let _ = memory.learn(name, led("blog", 60), now);
        assert_eq!(word(&mut memory, name, now), "known blog");
    }

    #[test]
    fn names_that_lead_nowhere_push_none_out_that_leads_here() {
        let (mut memory, now) = (Memory::new(), Instant::now());
        let _ = memory.learn("shop.example.net", led("shop", 60), now);
        for number in 0..OTHERS + 1 {
            let name = format!("{number}.example.org");
            let _ = memory.learn(&name, Found::none(NotLed::NoRecord), now);
        }
        assert_eq!(memory.others.len(), OTHERS);
        assert_eq!(word(&mut memory, "shop.example.net", now), "known shop");
        assert_eq!(word(&mut memory, "0.example.org", now), "nothing");
    }

    #[test]
    fn unknown_names_are_paid_for_by_each_and_by_all() {
        let (mut paces, now) = (Paces::new(), Instant::now());
        let one: IpAddr = "192.0.2.1".parse().expect("an address");
        for _ in 0..CLIENT.burst {
            assert_eq!(paces.take(Some(one), now), Ok(()));
        }
        assert_eq!(paces.take(Some(one), now), Err(NotLed::TooMany(3)));
        let mut taken = CLIENT.burst;
        // A site has many addresses of version 6, and is one client.
        for number in 0..CLIENT.burst {
            let address = format!("2001:db8::{number:x}").parse().expect("an address");
            assert_eq!(paces.take(Some(address), now), Ok(()));
            taken += 1;
        }
        let other = "2001:db8::ffff".parse().expect("an address");
        assert!(matches!(
            paces.take(Some(other), now),
            Err(NotLed::TooMany(_))
        ));
        for number in 0..ALL.burst - taken {
            let [.., high, low] = number.to_be_bytes();
            assert_eq!(paces.take(Some([10, 0, high, low].into()), now), Ok(()));
        }
        assert_eq!(
            paces.take(Some([10, 1, 0, 0].into()), now),
            Err(NotLed::Busy)
        );
        assert_eq!(paces.take(None, now), Err(NotLed::Busy));
        assert_eq!(paces.take(None, now + ALL.every), Ok(()));
        assert_eq!(paces.take(Some(one), now + CLIENT.every), Ok(()));
    }
}
