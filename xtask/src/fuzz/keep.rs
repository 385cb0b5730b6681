//! Which found inputs are worth keeping. What each reaches comes in, as libFuzzer's merge writes
//! it; the few that together reach most go out. It reads and copies no file.
//!
//! The list is that of libFuzzer's FuzzerMerge.cpp: the number of files, the number of those that
//! are kept anyhow, their paths, then lines of which `FT INDEX FEATURE..` says what one reaches.

use std::collections::HashSet;

/// The paths of at most `room` inputs, the one that adds most first. None if this is no such list.
pub(super) fn choose(list: &str, room: usize) -> Option<Vec<&str>> {
    let mut lines = list.lines();
    let count: usize = lines.next()?.parse().ok()?;
    let kept: usize = lines.next()?.parse().ok()?;
    let paths: Vec<_> = lines.by_ref().take(count).collect();
    let mut reached = HashSet::new();
    let mut candidates = Vec::new();
    for line in lines {
        let mut words = line.split(' ');
        if words.next() != Some("FT") {
            continue;
        }
        let index: usize = words.next()?.parse().ok()?;
        let features = words.map(|word| word.parse().ok()).collect::<Option<Vec<u32>>>()?;
        if index < kept {
            reached.extend(features);
        } else {
            candidates.push((*paths.get(index)?, features));
        }
    }
    let mut chosen = Vec::new();
    while chosen.len() < room {
        candidates.iter_mut().for_each(|(_, new)| new.retain(|each| !reached.contains(each)));
        candidates.retain(|(_, new)| !new.is_empty());
        let best = candidates.iter().enumerate().max_by_key(|(_, (_, new))| new.len());
        let Some((best, _)) = best else { break };
        let (path, new) = candidates.swap_remove(best);
        reached.extend(new);
        chosen.push(path);
    }
    Some(chosen)
}

#[cfg(test)]
mod tests {
    use super::choose;

    const LIST: &str = "4\n1\ncorpus/a\nfound/b\nfound/c\nfound/d\nSTARTED 0 9\nFT 0 1 2\n\
                        COV 0 7\nSTARTED 1 9\nFT 1 2 3\nSTARTED 2 9\nFT 2 1 3 4 5\nSTARTED 3 9\n\
                        FT 3 6\n";

    #[test]
    fn the_input_that_adds_most_comes_first_and_none_that_adds_nothing() {
        assert_eq!(choose(LIST, 9), Some(vec!["found/c", "found/d"]));
        assert_eq!(choose(LIST, 1), Some(vec!["found/c"]));
        assert_eq!(choose(LIST, 0), Some(vec![]));
    }

    #[test]
    fn another_list_is_none() {
        for list in ["", "x\n", "1\n0\na\nFT 7 1\n", "1\n0\na\nFT 0 one\n"] {
            assert_eq!(choose(list, 9), None, "{list:?}");
        }
    }
}
