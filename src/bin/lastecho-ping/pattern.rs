//! What is sent: bytes that no other message has at the same place.

/// Fills a message. Every byte depends on all four: the run, the connection,
/// the message's number and the byte's place. So an echo that is stale,
/// doubled, shifted, or somebody else's does not pass for the right one.
pub(crate) fn fill(message: &mut [u8], run: u64, connection: u64, seq: u64) {
    let mut state = mix(mix(mix(run) ^ connection) ^ seq);
    for chunk in message.chunks_mut(8) {
        state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let bytes = mix(state).to_le_bytes();
        chunk.copy_from_slice(&bytes[..chunk.len()]);
    }
}

/// SplitMix64's mixing: one bit changed in changes half of them out.
fn mix(state: u64) -> u64 {
    let state = (state ^ (state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let state = (state ^ (state >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    state ^ (state >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(run: u64, connection: u64, seq: u64) -> [u8; 59] {
        let mut message = [0; 59];
        fill(&mut message, run, connection, seq);
        message
    }

    /// How many bytes are the same at the same place.
    fn alike(one: &[u8], two: &[u8]) -> usize {
        one.iter().zip(two).filter(|(one, two)| one == two).count()
    }

    #[test]
    fn no_two_messages_are_alike_nor_is_one_to_itself_shifted() {
        let first = message(1, 1, 1);
        assert_eq!(first, message(1, 1, 1));
        for other in [message(1, 1, 2), message(1, 2, 1), message(2, 1, 1)] {
            assert!(alike(&first, &other) < 6);
        }
        for shift in 1..30 {
            assert!(alike(&first, &first[shift..]) < 6);
        }
    }
}
