//! The blocks of code in a document.

/// A fenced block.
pub(crate) struct Block<'a> {
    pub(crate) language: &'a str,
    pub(crate) text: String,
    /// The line its text begins at.
    pub(crate) line: usize,
}

/// Every fenced block, in order.
pub(crate) fn blocks(document: &str) -> Vec<Block<'_>> {
    let mut blocks: Vec<Block<'_>> = Vec::new();
    let mut open = false;
    for (index, line) in document.lines().enumerate() {
        match (line.strip_prefix("```"), open) {
            (Some(language), false) => {
                blocks.push(Block { language: language.trim(), text: String::new(), line: index + 2 });
                open = true;
            }
            (Some(_), true) => open = false,
            (None, true) => {
                let block = blocks.last_mut().unwrap();
                block.text.push_str(line);
                block.text.push('\n');
            }
            (None, false) => {}
        }
    }
    assert!(!open, "a block is never closed");
    blocks
}

/// The commands of a shell block: comments dropped, lines that end in `\` joined with the next.
pub(crate) fn commands(block: &str) -> Vec<String> {
    let joined = block.replace("\\\n", " ");
    let lines = joined.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#'));
    lines.map(str::to_owned).collect()
}

#[test]
fn blocks_and_their_commands_are_found() {
    let found = blocks("a\n```bash\nx \\\n  y\n# no\nz\n```\n```sql\nSELECT 1;\n```\n");
    assert_eq!(found[0].language, "bash");
    assert_eq!(found[0].line, 3);
    assert_eq!(found[1].language, "sql");
    assert_eq!(commands(&found[0].text), ["x    y", "z"]);
}
