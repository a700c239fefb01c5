#!/bin/sh
# Makes a tree and a database that a scenario backs up.
set -eu
mkdir -p /srv/docs/deep /srv/app
printf 'first\n' >/srv/docs/plan.txt
printf 'two\n' >/srv/docs/deep/two.txt
ln -s ../plan.txt /srv/docs/deep/link
chmod 0600 /srv/docs/deep/two.txt
sqlite3 /srv/app/app.db 'create table record(n integer); insert into record values (1), (2), (3);'
