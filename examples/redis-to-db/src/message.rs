//! What a message is: a key, a space and a body.

/// Returns the key and the body of a message.
///
/// # Errors
/// It has no key, or one that is no text.
pub fn parse(message: &[u8]) -> Result<(&str, &[u8]), &'static str> {
    let end = message.iter().position(|byte| *byte == b' ');
    let (key, body) = message.split_at(end.ok_or("no key and body")?);
    if key.is_empty() {
        return Err("the key is empty");
    }
    let key = str::from_utf8(key).map_err(|_| "the key is not UTF-8")?;
    Ok((key, &body[1..]))
}
