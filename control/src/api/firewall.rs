//! The firewall of a container: rules for connections to it and of it, in order.
//!
//! The first rule of a direction that fits decides; what none fits passes. Rules are held against
//! every packet on the host, so they hold when the call answers, also for connections that are
//! there. Whatever they say, a container sends from its own address alone, and its URLs lead to it.

use kit::{Call, Fault, Operation, Route};
use routes::Id;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::containers::{invalid, seen};
use super::network::{changeable, note, supported};
use super::text::IdText;
use crate::auth::permissions::Permission;
use crate::auth::{Principal, broken};
use crate::control::Control;
use crate::firewall::{Action, BYTES, Direction, Protocol, RULES, Rule, Rules, State};
use crate::policies;
use crate::store::firewalls;

/// A rule, as it was given.
#[derive(Serialize, JsonSchema)]
pub struct Shown {
    action: Action,
    protocol: Protocol,
    description: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    destination_port: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    source: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    destination: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    source_port: Option<String>,
    state: State,
    #[serde(skip_serializing_if = "Option::is_none")]
    icmp_type: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    icmp_code: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    direction: Option<&'static str>,
}

impl Shown {
    fn of(rule: &Rule, direction: Direction) -> Shown {
        let rule = rule.clone();
        let (source, destination) = match direction {
            Direction::Ingress => (rule.peer, None),
            Direction::Egress => (None, rule.peer),
        };
        Shown {
            action: rule.action,
            protocol: rule.protocol,
            description: rule.description,
            destination_port: rule.destination_port,
            source,
            destination,
            source_port: rule.source_port,
            state: rule.state,
            icmp_type: rule.icmp_type,
            icmp_code: rule.icmp_code,
            direction: None,
        }
    }

    fn all(rules: &Rules, direction: Direction) -> Vec<Shown> {
        let rules = rules.of(direction).iter();
        rules.map(|rule| Shown::of(rule, direction)).collect()
    }
}

/// All rules of a container, each direction in its order.
#[derive(Serialize, JsonSchema)]
pub struct Both {
    ingress: Vec<Shown>,
    egress: Vec<Shown>,
}

impl Both {
    fn of(rules: &Rules) -> Both {
        Both {
            ingress: Shown::all(rules, Direction::Ingress),
            egress: Shown::all(rules, Direction::Egress),
        }
    }
}

#[derive(Serialize, JsonSchema)]
pub struct Listed {
    ingress: Vec<Shown>,
    egress: Vec<Shown>,
    rule_count: usize,
    byte_count: usize,
    /// Of each direction.
    max_rules: usize,
    max_bytes: usize,
}

#[derive(Serialize, JsonSchema)]
pub struct AfterReset {
    rules: Both,
}

#[derive(Serialize, JsonSchema)]
pub struct Removed {
    direction: &'static str,
    removed_count: usize,
    removed: Vec<Shown>,
}

#[derive(Serialize, JsonSchema)]
pub struct Toggled {
    direction: &'static str,
    new_state: State,
    updated: Shown,
}

/// What tells rules apart; all that is named has to be the same.
struct Criteria {
    action: Option<Action>,
    protocol: Option<Protocol>,
    description: Option<String>,
    peer: Option<String>,
    destination_port: Option<String>,
    source_port: Option<String>,
    icmp_type: Option<String>,
    icmp_code: Option<String>,
    state: Option<State>,
}

impl Criteria {
    fn name_nothing(&self) -> bool {
        self.action.is_none()
            && self.protocol.is_none()
            && self.state.is_none()
            && [
                &self.description,
                &self.peer,
                &self.destination_port,
                &self.source_port,
                &self.icmp_type,
                &self.icmp_code,
            ]
            .iter()
            .all(|text| text.is_none())
    }

    fn fit(&self, rule: &Rule) -> bool {
        let same = |asked: &Option<String>, has: &Option<String>| asked.is_none() || asked == has;
        self.action.is_none_or(|action| action == rule.action)
            && self.protocol.is_none_or(|asked| asked == rule.protocol)
            && self.state.is_none_or(|state| state == rule.state)
            && (self.description.as_ref()).is_none_or(|text| *text == rule.description)
            && same(&self.peer, &rule.peer)
            && same(&self.destination_port, &rule.destination_port)
            && same(&self.source_port, &rule.source_port)
            && same(&self.icmp_type, &rule.icmp_type)
            && same(&self.icmp_code, &rule.icmp_code)
    }
}

/// Change rules in one transaction, and have them hold.
async fn change<T: Send + 'static>(
    control: &Control,
    call: &Call,
    id: Id,
    direction: Option<Direction>,
    change: impl FnOnce(&mut Rules) -> Result<T, Fault> + Send + 'static,
) -> Result<(T, Rules), Fault> {
    let principal = Principal::who_may(call, Permission::ContainersUpdate)?;
    principal.may(Permission::Firewalls)?;
    supported(control)?;
    let now = control.now();
    let changed = control
        .store
        .write("change the firewall of a container", move |db| {
            let owned = match changeable(db, &principal, id)? {
                Ok(owned) => owned,
                Err(fault) => return Ok(Err(fault)),
            };
            let before = firewalls::find(db, id)?;
            let mut rules = before.clone();
            let said = match change(&mut rules) {
                Ok(said) => said,
                Err(fault) => return Ok(Err(fault)),
            };
            if rules != before {
                firewalls::put(db, id, &rules, now)?;
                let of = direction.map_or("all", Direction::as_str);
                note(db, &owned, &principal, json!({ "firewall": of }), now)?;
            }
            Ok(Ok((said, rules)))
        })
        .await
        .map_err(broken)??;
    policies::apply(control).await.map_err(|_| {
        Fault::unavailable("the rules are kept, and do not hold yet; it is tried again by itself")
            .code("RUNTIME_UNAVAILABLE")
    })?;
    Ok(changed)
}

async fn add(
    control: Control,
    call: Call,
    id: Id,
    direction: Direction,
    rule: Rule,
) -> Result<Both, Fault> {
    if let Err(wrong) = rule.filter() {
        return Err(invalid(wrong.field.name(direction), wrong.message));
    }
    let (_, rules) = change(&control, &call, id, Some(direction), move |rules| {
        let all = rules.of_mut(direction);
        if all.iter().any(|other| other.does_as(&rule)) {
            return Err(Fault::conflict(format!(
                "the {direction} rules have one that does the same; change it with `hoody firewall {direction} toggle`"
            ))
            .code("DUPLICATE_RULE"));
        }
        if all.len() >= RULES {
            return Err(Fault::conflict(format!(
                "the container has {RULES} {direction} rules and may have no more; delete some"
            ))
            .code("LIMIT_REACHED"));
        }
        all.push(rule);
        match rules.bytes() > BYTES {
            false => Ok(()),
            true => Err(Fault::conflict(format!(
                "the rules of a container may take {BYTES} bytes; delete some, or shorten what is said of them"
            ))
            .code("LIMIT_REACHED")),
        }
    })
    .await?;
    Ok(Both::of(&rules))
}

async fn toggle(
    control: Control,
    call: Call,
    id: Id,
    direction: Direction,
    criteria: Criteria,
    state: State,
) -> Result<Toggled, Fault> {
    let (updated, _) = change(&control, &call, id, Some(direction), move |rules| {
        let mut fitting = rules
            .of_mut(direction)
            .iter_mut()
            .filter(|rule| criteria.fit(rule));
        let rule = fitting.next().ok_or_else(|| no_rule(direction))?;
        if fitting.next().is_some() {
            return Err(Fault::conflict(format!(
                "several {direction} rules are like that; name more of the one that is meant"
            ))
            .code("AMBIGUOUS_RULE"));
        }
        rule.state = state;
        Ok(Shown::of(rule, direction))
    })
    .await?;
    Ok(Toggled {
        direction: direction.as_str(),
        new_state: state,
        updated,
    })
}

async fn remove(
    control: Control,
    call: Call,
    id: Id,
    direction: Direction,
    criteria: Criteria,
    all: bool,
) -> Result<Removed, Fault> {
    if !all && criteria.name_nothing() {
        return Err(Fault::bad_request(
            "say which rules to delete, or `all: true` for all of this direction",
        )
        .code("VALIDATION_ERROR"));
    }
    let (removed, _) = change(&control, &call, id, Some(direction), move |rules| {
        let (gone, kept): (Vec<Rule>, Vec<Rule>) = std::mem::take(rules.of_mut(direction))
            .into_iter()
            .partition(|rule| criteria.fit(rule));
        *rules.of_mut(direction) = kept;
        match gone.is_empty() && !all {
            true => Err(no_rule(direction)),
            false => Ok(gone),
        }
    })
    .await?;
    Ok(Removed {
        direction: direction.as_str(),
        removed_count: removed.len(),
        removed: (removed.iter())
            .map(|rule| Shown::of(rule, direction))
            .collect(),
    })
}

fn no_rule(direction: Direction) -> Fault {
    Fault::not_found(format!(
        "no {direction} rule is like that; list them with `hoody firewall list`"
    ))
    .code("RULE_NOT_FOUND")
}

/// The rules of a container's firewall, each direction in the order in which they are asked.
#[derive(Deserialize, JsonSchema)]
pub struct List {
    id: IdText,
}

impl Operation for List {
    const ROUTE: Route = Route::get("/api/v1/containers/{id}/firewall/rules")
        .named("listFirewallRules")
        .cli("firewall list");
    type Service = Control;
    type Reply = Listed;

    async fn run(self, control: Control, call: Call) -> Result<Listed, Fault> {
        let principal = Principal::who_may(&call, Permission::ContainersRead)?;
        principal.may(Permission::Firewalls)?;
        let id = self.id.0;
        seen(&control, &principal, id).await?;
        let rules = control
            .store
            .read("list the rules of a firewall", move |db| {
                firewalls::find(db, id)
            })
            .await
            .map_err(broken)?;
        let all = |direction| {
            let mut all = Shown::all(&rules, direction);
            for rule in &mut all {
                rule.direction = Some(direction.as_str());
            }
            all
        };
        Ok(Listed {
            ingress: all(Direction::Ingress),
            egress: all(Direction::Egress),
            rule_count: rules.count(),
            byte_count: rules.bytes(),
            max_rules: RULES,
            max_bytes: BYTES,
        })
    }
}

/// Delete all rules of a container's firewall: everything passes.
#[derive(Deserialize, JsonSchema)]
pub struct Reset {
    id: IdText,
}

impl Operation for Reset {
    const ROUTE: Route = Route::post("/api/v1/containers/{id}/firewall/reset")
        .named("resetFirewall")
        .cli("firewall reset")
        .status(200)
        .says("Firewall reset");
    type Service = Control;
    type Reply = AfterReset;

    async fn run(self, control: Control, call: Call) -> Result<AfterReset, Fault> {
        let clear = |rules: &mut Rules| {
            *rules = Rules::default();
            Ok(())
        };
        let (_, rules) = change(&control, &call, self.id.0, None, clear).await?;
        Ok(AfterReset {
            rules: Both::of(&rules),
        })
    }
}

/// The three operations on the rules of one direction; what they are about is called differently.
macro_rules! direction {
    ($direction:ident, $peer:ident, $path:literal, $others:literal,
     $add:ident $add_id:literal $add_cli:literal $add_doc:literal,
     $toggle:ident $toggle_id:literal $toggle_cli:literal $toggle_doc:literal,
     $remove:ident $remove_id:literal $remove_cli:literal $remove_doc:literal) => {
        #[doc = $add_doc]
        #[derive(Deserialize, JsonSchema)]
        pub struct $add {
            id: IdText,
            action: Action,
            protocol: Protocol,
            /// What the rule is for.
            description: String,
            /// `443`, `8000-8100`, or several with commas between; all where left out.
            destination_port: Option<String>,
            #[doc = $others]
            $peer: Option<String>,
            /// As `destination_port`.
            source_port: Option<String>,
            /// Enabled where left out.
            #[serde(default)]
            state: State,
            /// A number; all where left out.
            icmp_type: Option<String>,
            /// A number; all where left out.
            icmp_code: Option<String>,
        }

        impl Operation for $add {
            const ROUTE: Route = Route::post($path)
                .named($add_id)
                .cli($add_cli)
                .status(200)
                .says("Rule added");
            type Service = Control;
            type Reply = Both;

            async fn run(self, control: Control, call: Call) -> Result<Both, Fault> {
                let rule = Rule {
                    action: self.action,
                    protocol: self.protocol,
                    description: self.description,
                    peer: self.$peer,
                    destination_port: self.destination_port,
                    source_port: self.source_port,
                    icmp_type: self.icmp_type,
                    icmp_code: self.icmp_code,
                    state: self.state,
                };
                add(control, call, self.id.0, Direction::$direction, rule).await
            }
        }

        #[doc = $toggle_doc]
        #[derive(Deserialize, JsonSchema)]
        pub struct $toggle {
            id: IdText,
            /// What it is to be.
            state: State,
            action: Option<Action>,
            protocol: Option<Protocol>,
            description: Option<String>,
            destination_port: Option<String>,
            $peer: Option<String>,
            source_port: Option<String>,
            icmp_type: Option<String>,
            icmp_code: Option<String>,
        }

        impl Operation for $toggle {
            const ROUTE: Route = Route::patch($path)
                .named($toggle_id)
                .cli($toggle_cli)
                .says("Rule changed");
            type Service = Control;
            type Reply = Toggled;

            async fn run(self, control: Control, call: Call) -> Result<Toggled, Fault> {
                let criteria = Criteria {
                    action: self.action,
                    protocol: self.protocol,
                    description: self.description,
                    peer: self.$peer,
                    destination_port: self.destination_port,
                    source_port: self.source_port,
                    icmp_type: self.icmp_type,
                    icmp_code: self.icmp_code,
                    state: None,
                };
                let (id, direction) = (self.id.0, Direction::$direction);
                toggle(control, call, id, direction, criteria, self.state).await
            }
        }

        #[doc = $remove_doc]
        #[derive(Deserialize, JsonSchema)]
        pub struct $remove {
            id: IdText,
            /// All that fit; all of the direction where nothing else is named.
            #[serde(default)]
            all: bool,
            action: Option<Action>,
            protocol: Option<Protocol>,
            description: Option<String>,
            destination_port: Option<String>,
            $peer: Option<String>,
            source_port: Option<String>,
            state: Option<State>,
            icmp_type: Option<String>,
            icmp_code: Option<String>,
        }

        impl Operation for $remove {
            const ROUTE: Route = Route::delete($path)
                .named($remove_id)
                .cli($remove_cli)
                .with_body()
                .says("Rules deleted");
            type Service = Control;
            type Reply = Removed;

            async fn run(self, control: Control, call: Call) -> Result<Removed, Fault> {
                let criteria = Criteria {
                    action: self.action,
                    protocol: self.protocol,
                    description: self.description,
                    peer: self.$peer,
                    destination_port: self.destination_port,
                    source_port: self.source_port,
                    icmp_type: self.icmp_type,
                    icmp_code: self.icmp_code,
                    state: self.state,
                };
                let (id, direction) = (self.id.0, Direction::$direction);
                remove(control, call, id, direction, criteria, self.all).await
            }
        }
    };
}

direction!(
    Ingress, source, "/api/v1/containers/{id}/firewall/ingress",
    "Networks that connections come from, such as 192.0.2.0/24, with commas between; all where left out.",
    AddIngress "addIngressRule" "firewall ingress create"
    "Add a rule for connections to a container, behind those that are there.",
    ToggleIngress "toggleIngressRule" "firewall ingress toggle"
    "Turn a rule for connections to a container on or off: the one that has all that is named.",
    RemoveIngress "removeIngressRule" "firewall ingress delete"
    "Delete rules for connections to a container: those that have all that is named."
);
direction!(
    Egress, destination, "/api/v1/containers/{id}/firewall/egress",
    "Networks that are connected to, such as 192.0.2.0/24, with commas between; all where left out.",
    AddEgress "addEgressRule" "firewall egress create"
    "Add a rule for connections of a container, behind those that are there. What it sends to this node's URLs passes in any case.",
    ToggleEgress "toggleEgressRule" "firewall egress toggle"
    "Turn a rule for connections of a container on or off: the one that has all that is named.",
    RemoveEgress "removeEgressRule" "firewall egress delete"
    "Delete rules for connections of a container: those that have all that is named."
);
