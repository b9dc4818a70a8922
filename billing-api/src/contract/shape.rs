//! Objects of the API: their names, and their members in the order in which they are answered.

/// The kind of a member.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Kind {
    /// A text.
    Text,
    /// A UUID.
    Uuid,
    /// A day of a time zone.
    Day,
    /// A moment, RFC 3339.
    Time,
    /// A moment, or a day for its first moment.
    Moment,
    /// A tenant's name.
    TenantId,
    /// The reason something is changed.
    Reason,
    /// A month.
    Month,
    /// A whole number.
    Integer,
    /// A whole number from 1 on.
    Counted,
    /// A number as exact decimal.
    Decimal,
    /// An object that is described in words only.
    Json,
    /// One of these words.
    Words(&'static [&'static str]),
    /// One of these numbers.
    Choice(&'static [i64]),
    /// An object.
    Object(ShapeRef),
    /// Objects.
    List(ShapeRef),
}

/// A member.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Member {
    pub(crate) name: &'static str,
    pub(crate) kind: Kind,
    pub(crate) is_required: bool,
    pub(crate) is_nullable: bool,
    pub(crate) about: &'static str,
}

/// A member that is always there.
pub(crate) const fn member(name: &'static str, kind: Kind) -> Member {
    Member { name, kind, is_required: true, is_nullable: false, about: "" }
}

impl Member {
    /// The member, which may be `null`.
    #[must_use]
    pub(crate) const fn or_null(self) -> Self {
        Self { is_nullable: true, ..self }
    }

    /// The member, which may be left out.
    #[must_use]
    pub(crate) const fn optional(self) -> Self {
        Self { is_required: false, ..self }
    }

    /// The member, with what it means.
    #[must_use]
    pub(crate) const fn about(self, about: &'static str) -> Self {
        Self { about, ..self }
    }
}

/// An object.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Shape<const N: usize> {
    pub(crate) name: &'static str,
    pub(crate) members: [Member; N],
}

/// An object, however many members it has; `more` are those that only it has beside another one's.
#[derive(Debug, Clone, Copy)]
pub(crate) struct ShapeRef {
    pub(crate) name: &'static str,
    pub(crate) members: &'static [Member],
    pub(crate) more: &'static [Member],
}

impl<const N: usize> Shape<N> {
    /// The object as such.
    pub(crate) const fn whole(&'static self) -> ShapeRef {
        ShapeRef { name: self.name, members: &self.members, more: &[] }
    }

    /// Another object, which has these members too.
    pub(crate) const fn with(&'static self, name: &'static str, more: &'static [Member]) -> ShapeRef {
        ShapeRef { name, members: &self.members, more }
    }

    /// The members' names.
    pub(crate) fn names(&self) -> [&'static str; N] {
        self.members.map(|member| member.name)
    }
}

impl ShapeRef {
    /// All members, in their order.
    pub(crate) fn all(self) -> impl Iterator<Item = &'static Member> {
        self.members.iter().chain(self.more)
    }
}
