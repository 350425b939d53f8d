-- Partitions email_events by the month in which a mail was sent, so that a month can be dropped at once:
--   psql "$DATABASE" -f extras/partition.sql           (again each year; what has no partition lies in email_events_rest:
--   keep that one, for what no partition takes is not acknowledged)
--   psql "$DATABASE" -c "begin; set local lock_timeout = '2s'; drop table email_events_2026_11; commit"
-- An id begins with the milliseconds since 1970 that SES writes into a mail's id, so ranges of ids are ranges of time, and the primary key
-- still tells duplicates. The receivers may run meanwhile: they wait. But they would wait behind whoever reads for long, too, so then either
-- gives up, and has changed nothing: run it again. Whoever owned email_events owns all of it, and whoever had rights has them.
begin;
set local lock_timeout = '2s';
lock table email_events;
create function pg_temp.id_at(at date) returns uuid language sql as
    $$ select (lpad(to_hex((extract(epoch from at::timestamp at time zone 'UTC') * 1000)::bigint), 12, '0') || repeat('0', 20))::uuid $$;
do $$
declare
    month date;
    allowed record;
    owner regrole := (select relowner from pg_class where oid = 'email_events'::regclass);
begin
    if (select relkind from pg_class where oid = 'email_events'::regclass) = 'r' then
        alter table email_events rename to email_events_rest;
        create table email_events (like email_events_rest including defaults) partition by range (id);
        alter table email_events add primary key (id);
        create index on email_events (sort_key);
        create index on email_events (email, sort_key);
        alter table email_events attach partition email_events_rest default;
        execute format('alter table email_events owner to %s', owner);
        for allowed in select acl.* from pg_class, aclexplode(relacl) as acl where pg_class.oid = 'email_events_rest'::regclass loop
            execute format('grant %s on email_events to %s%s', allowed.privilege_type,
                case allowed.grantee when 0 then 'public' else allowed.grantee::regrole::text end, case when allowed.is_grantable then ' with grant option' end);
        end loop;
    end if;
    for month in select generate_series(date_trunc('month', now()), now() + interval '13 months', interval '1 month') loop
        continue when to_regclass('email_events_' || to_char(month, 'YYYY_MM')) is not null;
        execute format('create table %I (like email_events including all)', 'email_events_' || to_char(month, 'YYYY_MM'));
        execute format('with moved as (delete from email_events_rest where id >= %1$L and id < %2$L returning *) insert into %3$I select * from moved',
            pg_temp.id_at(month), pg_temp.id_at((month + interval '1 month')::date), 'email_events_' || to_char(month, 'YYYY_MM'));
        execute format('alter table email_events attach partition %I for values from (%L) to (%L)', 'email_events_' || to_char(month, 'YYYY_MM'),
            pg_temp.id_at(month), pg_temp.id_at((month + interval '1 month')::date));
        execute format('alter table %I owner to %s', 'email_events_' || to_char(month, 'YYYY_MM'), owner);
    end loop;
end $$;
commit;
