use super::*;

const MB: u64 = 1 << 20;

fn member(number: u8, kind: &str, edition: &str, state: State) -> Member {
    Member {
        id: Id([number; 12]),
        kind: kind.to_owned(),
        edition: edition.to_owned(),
        state,
        memory: 40 * MB,
        since: number.into(),
    }
}

fn want(kind: &str, size: usize) -> Want {
    Want {
        kind: kind.to_owned(),
        size,
        edition: Some("1".to_owned()),
        expected: 40 * MB,
    }
}

fn dropped(number: u8) -> Option<Job> {
    Some(Job::Drop(Id([number; 12])))
}

#[test]
fn pools_become_what_they_should_be() {
    let ready = |number| member(number, "a", "1", State::Ready);
    type Case = (&'static str, Vec<Want>, Vec<Member>, u64, Option<Job>);
    let cases: [Case; 12] = [
        ("nothing wanted, nothing there", vec![], vec![], 0, None),
        (
            "an empty pool is filled",
            vec![want("a", 1)],
            vec![],
            100 * MB,
            Some(Job::Make(0)),
        ),
        (
            "a full one is left alone",
            vec![want("a", 1)],
            vec![ready(1)],
            100 * MB,
            None,
        ),
        (
            "of one too many the newest goes",
            vec![want("a", 1)],
            vec![ready(1), ready(2)],
            100 * MB,
            dropped(2),
        ),
        (
            "what nobody wants goes",
            vec![want("b", 1)],
            vec![ready(1)],
            100 * MB,
            dropped(1),
        ),
        (
            "and so does all of a pool that is off",
            vec![want("a", 0)],
            vec![ready(1)],
            100 * MB,
            dropped(1),
        ),
        (
            "an older edition goes",
            vec![want("a", 1)],
            vec![member(1, "a", "0", State::Ready)],
            100 * MB,
            dropped(1),
        ),
        (
            "what was begun by another control goes",
            vec![want("a", 2)],
            vec![ready(1), member(2, "a", "1", State::Making)],
            100 * MB,
            dropped(2),
        ),
        (
            "a removal goes on",
            vec![want("a", 2)],
            vec![ready(1), member(2, "a", "1", State::Dropping)],
            100 * MB,
            dropped(2),
        ),
        (
            "there is no memory for another",
            vec![want("a", 3)],
            vec![ready(1), ready(2)],
            119 * MB,
            None,
        ),
        (
            "they hold more than they may",
            vec![want("a", 3)],
            vec![ready(1), ready(2)],
            79 * MB,
            dropped(2),
        ),
        (
            "the emptiest goes first",
            vec![want("a", 4), want("b", 1)],
            vec![ready(1)],
            200 * MB,
            Some(Job::Make(1)),
        ),
    ];
    for (case, wants, members, memory, job) in cases {
        assert_eq!(decide(&wants, &members, |_| true, memory), job, "{case}");
    }
}

#[test]
fn one_that_does_not_stand_still_goes() {
    let members = [
        member(1, "a", "1", State::Ready),
        member(2, "a", "1", State::Ready),
    ];
    let job = decide(&[want("a", 2)], &members, |id| id == Id([1; 12]), 100 * MB);
    assert_eq!(job, dropped(2));
}

#[test]
fn while_an_image_cannot_be_looked_up_nothing_is_made_or_thrown_away() {
    let mut unknown = want("a", 2);
    unknown.edition = None;
    let members = [member(1, "a", "0", State::Ready)];
    assert_eq!(decide(&[unknown], &members, |_| true, 100 * MB), None);
}

/// However it begins, it comes to rest within its bounds.
#[test]
fn it_comes_to_rest_within_the_memory() {
    for (memory, expect) in [(0, 0), (39 * MB, 0), (100 * MB, 2), (1000 * MB, 5)] {
        let wants = [want("a", 3), want("b", 2)];
        let mut members = vec![
            member(1, "c", "1", State::Ready),
            member(2, "a", "0", State::Ready),
            member(3, "b", "1", State::Making),
        ];
        let mut next = 10;
        let mut rested = false;
        for _ in 0..50 {
            match decide(&wants, &members, |_| true, memory) {
                Some(Job::Drop(id)) => members.retain(|member| member.id != id),
                Some(Job::Make(at)) => {
                    next += 1;
                    members.push(member(next, &wants[at].kind, "1", State::Ready));
                }
                None => {
                    rested = true;
                    break;
                }
            }
        }
        assert!(rested, "with {memory}: {members:?}");
        assert_eq!(members.len(), expect, "with {memory}");
        let held: u64 = members.iter().map(|member| member.memory).sum();
        assert!(held <= memory);
    }
}
