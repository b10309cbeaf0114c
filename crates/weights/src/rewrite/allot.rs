//! Spends a budget of bytes on the modules where it saves most damage.
//! Knows nothing of how damage is measured, nor of bits.

/// One way to store a module.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Cost {
    pub(super) bytes: u64,
    /// What is lost. Only differences between damages of one model count.
    pub(super) damage: f64,
}

/// A step from one way to store a module to a better one that takes more bytes.
struct Upgrade {
    module: usize,
    to: usize,
    bytes: u64,
    /// Damage saved per byte.
    worth: f64,
}

/// Returns for each module the number of the way that it is stored in. All ways together take `budget` bytes at
/// most. Every module has the fewest bytes first. Then the upgrade that saves most damage per byte is taken, as
/// long as it fits; of equal ones the first module's. So the order of the modules decides between equals.
///
/// Fails with the bytes that are needed if even the fewest are more than the budget.
pub(super) fn allot(modules: &[Vec<Cost>], budget: f64) -> Result<Vec<usize>, u64> {
    let hulls: Vec<_> = modules.iter().map(|ways| hull(ways)).collect();
    let mut chosen: Vec<_> = hulls.iter().map(|hull| hull.first().copied().unwrap_or_default()).collect();
    let least =
        modules.iter().zip(&chosen).filter_map(|(ways, way)| ways.get(*way)).map(|cost| cost.bytes).sum();
    if least as f64 > budget {
        return Err(least);
    }
    let mut upgrades: Vec<_> = hulls
        .iter()
        .enumerate()
        .flat_map(|(module, hull)| upgrades(module, &modules[module], hull))
        .collect();
    upgrades.sort_by(|a, b| b.worth.total_cmp(&a.worth));
    let mut spent: u64 = least;
    let mut is_closed = vec![false; modules.len()];
    for Upgrade { module, to, bytes, .. } in upgrades {
        // An upgrade starts from the way before it. If that does not fit, the later ones of the module do not.
        is_closed[module] |= (spent + bytes) as f64 > budget;
        if !is_closed[module] {
            spent += bytes;
            chosen[module] = to;
        }
    }
    Ok(chosen)
}

/// Returns the ways that are worth their bytes: the lower convex hull of damage over bytes, by ascending bytes.
/// So each step along it saves less damage per byte than the step before.
fn hull(ways: &[Cost]) -> Vec<usize> {
    let mut order: Vec<_> = (0..ways.len()).collect();
    order.sort_by(|a, b| {
        let (a, b) = (ways[*a], ways[*b]);
        a.bytes.cmp(&b.bytes).then(a.damage.total_cmp(&b.damage))
    });
    let mut hull: Vec<usize> = Vec::new();
    for way in order {
        if hull.last().is_some_and(|last| ways[way].damage >= ways[*last].damage) {
            continue;
        }
        while let [.., before, last] = hull.as_slice()
            && worth(ways[*before], ways[*last]) <= worth(ways[*last], ways[way])
        {
            hull.pop();
        }
        hull.push(way);
    }
    hull
}

fn upgrades(module: usize, ways: &[Cost], hull: &[usize]) -> Vec<Upgrade> {
    let steps = hull.iter().zip(hull.iter().skip(1));
    let upgrade = |(from, to): (&usize, &usize)| Upgrade {
        module,
        to: *to,
        bytes: ways[*to].bytes - ways[*from].bytes,
        worth: worth(ways[*from], ways[*to]),
    };
    steps.map(upgrade).collect()
}

/// Returns the damage that is saved per byte.
fn worth(from: Cost, to: Cost) -> f64 {
    (from.damage - to.damage) / (to.bytes - from.bytes) as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ways(costs: &[(u64, f64)]) -> Vec<Cost> {
        costs.iter().map(|(bytes, damage)| Cost { bytes: *bytes, damage: *damage }).collect()
    }

    #[test]
    fn the_budget_goes_where_it_saves_most() {
        let modules = [ways(&[(4, 8.0), (5, 4.0), (8, 0.5)]), ways(&[(4, 3.0), (5, 1.0), (8, 0.0)])];
        assert_eq!(allot(&modules, 8.0), Ok(vec![0, 0]));
        assert_eq!(allot(&modules, 9.0), Ok(vec![1, 0]));
        assert_eq!(allot(&modules, 10.0), Ok(vec![1, 1]));
        assert_eq!(allot(&modules, 13.0), Ok(vec![2, 1]));
        assert_eq!(allot(&modules, 100.0), Ok(vec![2, 2]));
        assert_eq!(allot(&modules, 7.9), Err(8));
    }

    #[test]
    fn what_costs_nothing_to_round_gets_the_fewest_bytes() {
        let modules = [ways(&[(4, 0.0), (8, 0.0)]), ways(&[(4, 1.0), (8, 0.0)])];
        assert_eq!(allot(&modules, 100.0), Ok(vec![0, 1]));
    }

    #[test]
    fn of_equal_modules_the_first_is_served() {
        let module = ways(&[(4, 2.0), (5, 1.0)]);
        assert_eq!(allot(&[module.clone(), module.clone(), module], 13.0), Ok(vec![1, 0, 0]));
    }

    #[test]
    fn of_two_ways_with_the_same_bytes_the_better_is_taken() {
        let modules = [ways(&[(4, 2.0), (4, 1.0), (5, 0.5), (5, 0.9)])];
        assert_eq!(allot(&modules, 4.0), Ok(vec![1]));
        assert_eq!(allot(&modules, 5.0), Ok(vec![2]));
        // The way in the middle is not on the hull: the step beyond it is worth more.
        let bent = [ways(&[(4, 10.0), (5, 9.9), (6, 0.0)])];
        assert_eq!(allot(&bent, 5.0), Ok(vec![0]));
        assert_eq!(allot(&bent, 6.0), Ok(vec![2]));
    }

    /// Here a larger budget never leaves more damage, and no budget is exceeded.
    #[test]
    fn more_bytes_never_lose() {
        let modules: Vec<_> = (0..20)
            .map(|n| {
                let size = 1000 + 37 * n;
                let scale = (n * 7919 % 13 + 1) as f64;
                ways(
                    &[(4, 1.0), (5, 0.25), (6, 0.0625), (8, 0.004)]
                        .map(|(bits, error)| (size * bits, scale * error)),
                )
            })
            .collect();
        let damage = |budget: f64| {
            let chosen = allot(&modules, budget).unwrap();
            let costs: Vec<_> = chosen.iter().zip(&modules).map(|(way, ways)| ways[*way]).collect();
            assert!(costs.iter().map(|cost| cost.bytes).sum::<u64>() as f64 <= budget);
            costs.iter().map(|cost| cost.damage).sum::<f64>()
        };
        let least: u64 = modules.iter().map(|ways| ways[0].bytes).sum();
        let damages: Vec<_> = (0..20).map(|n| damage(least as f64 * (1.0 + f64::from(n) / 20.0))).collect();
        assert!(damages.windows(2).all(|pair| pair[1] <= pair[0]), "{damages:?}");
    }
}
