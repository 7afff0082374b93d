"""The tables of the shop."""

from __future__ import annotations

from datetime import date

from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column


class Base(DeclarativeBase):
    """The tables of the shop."""


class User(Base):
    """A customer. User 1 is Alice."""

    __tablename__ = "users"
    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str]
    email: Mapped[str]
    bio: Mapped[str]
    role: Mapped[str]
    version: Mapped[int]


class Product(Base):
    """Something to buy. The price is in cents; a stock of 0 is sold out."""

    __tablename__ = "products"
    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str]
    category: Mapped[str]
    price_cents: Mapped[int]
    stock: Mapped[int]
    version: Mapped[int]


class Permission(Base):
    """One thing that one user may do."""

    __tablename__ = "permissions"
    user_id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(primary_key=True)


class Flag(Base):
    """A feature flag."""

    __tablename__ = "flags"
    name: Mapped[str] = mapped_column(primary_key=True)
    enabled: Mapped[bool]


class Article(Base):
    """A page of the shop's magazine."""

    __tablename__ = "articles"
    id: Mapped[int] = mapped_column(primary_key=True)
    author_id: Mapped[int]
    title: Mapped[str]
    views: Mapped[int]


class Comment(Base):
    """What a user wrote under an article."""

    __tablename__ = "comments"
    id: Mapped[int] = mapped_column(primary_key=True)
    article_id: Mapped[int] = mapped_column(index=True)
    user_id: Mapped[int]
    text: Mapped[str]


class Order(Base):
    """One sale. Large on purpose, and without the index that a slow report would want."""

    __tablename__ = "orders"
    id: Mapped[int] = mapped_column(primary_key=True)
    user_id: Mapped[int]
    product_id: Mapped[int]
    quantity: Mapped[int]
    total_cents: Mapped[int]
    placed_on: Mapped[date]
