using System.Collections.Concurrent;
using System.Globalization;
using System.Text.Json;
using LiteDB;

/// <summary>Tests that measure, or load the whole machine: one at a time.</summary>
[CollectionDefinition("Alone", DisableParallelization = true)]
public sealed class Alone;

[Collection("Alone")]
public sealed class CrashTests {
    const int Connections = 64, Warm = 2_000, Signed = 20_000;
    static readonly int Rounds =
        int.Parse(Environment.GetEnvironmentVariable("CRASH_ROUNDS") ?? "3", CultureInfo.InvariantCulture);
    static readonly ParallelOptions Parallel64 = new() { MaxDegreeOfParallelism = Connections };

    readonly string _folder = Directory.CreateTempSubdirectory("receiver-").FullName;
    readonly FakeSns[] _sns = [.. Enumerable.Range(0, Environment.ProcessorCount).Select(_ => new FakeSns())];
    readonly ConcurrentQueue<string> _acknowledged = [];

    /// <summary>Bounces, each of an address of its own; a key a core, since a key signs for one at a time.</summary>
    (string Address, string Body)[] Sign(int round) {
        var messages = new (string, string)[Signed];
        Parallel.For(0, _sns.Length, signer => {
            for (int number = signer; number < Signed; number += _sns.Length) {
                string address = $"r{round}-{number}@example.com";
                messages[number] = (address, _sns[signer].Bounce(address));
            }
        });
        return messages;
    }

    /// <summary>Posts on all connections, and kills a random moment after the process is warm. Returns what had its
    /// 200.</summary>
    static async Task<string[]> KillUnderLoadAsync(
        OwnProcess receiver, (string Address, string Body)[] messages, Random random) {
        var acknowledged = new ConcurrentQueue<string>();
        var (next, warm) = (-1, new TaskCompletionSource());
        var posting = Task.WhenAll(Enumerable.Range(0, Connections).Select(async _ => {
            for (int at; (at = Interlocked.Increment(ref next)) < messages.Length;) {
                if (!await receiver.PostAsync(messages[at].Body)) break;
                acknowledged.Enqueue(messages[at].Address);
                if (acknowledged.Count >= Warm) warm.TrySetResult();
            }
        }));
        await warm.Task.WaitAsync(TimeSpan.FromSeconds(60));
        await Task.Delay(random.Next(50, 400));
        await receiver.KillAsync();
        await posting;
        Assert.True(acknowledged.Count < messages.Length, "everything was answered before the kill: sign more");
        return [.. acknowledged];
    }

    static async Task<int> StatusAsync(OwnProcess receiver, string address) {
        using var response = await receiver.Private.GetAsync("/suppressed/" + address, TestContext.Current.CancellationToken);
        return (int)response.StatusCode;
    }

    static async Task AssertSuppressedAsync(OwnProcess receiver, IEnumerable<string> addresses) {
        await Eventually.TrueAsync(async () => await StatusAsync(receiver, "nobody@example.com") == 404, seconds: 120); // loaded
        var lost = new ConcurrentBag<string>();
        await Parallel.ForEachAsync(addresses, Parallel64, async (address, _) => {
            if (await StatusAsync(receiver, address) != 200) lost.Add(address);
        });
        Assert.Empty(lost);
    }

    static async Task AssertOnceInHistoryAsync(OwnProcess receiver, IEnumerable<string> addresses) {
        foreach (string address in addresses) {
            JsonElement history = default;
            await Eventually.TrueAsync(async () => {
                history = JsonElement.Parse(await receiver.Private.GetStringAsync("/history/" + address));
                return history.GetProperty("complete").GetBoolean();
            }, seconds: 120);
            Assert.Single(history.GetProperty("events").EnumerateArray());
        }
    }

    [Fact]
    public async Task Kill_9_under_load_loses_nothing_that_was_acknowledged_and_doubles_nothing() {
        var random = new Random();
        foreach (var sns in _sns) sns.WriteCertificate(_folder);
        for (int round = 0; round < Rounds; round++) {
            var messages = Sign(round);
            using var receiver = await OwnProcess.StartAsync(_folder);
            string[] acknowledged = await KillUnderLoadAsync(receiver, messages, random);
            foreach (string address in acknowledged) _acknowledged.Enqueue(address);
            using var again = await OwnProcess.StartAsync(_folder);
            await AssertSuppressedAsync(again, acknowledged);
            await AssertOnceInHistoryAsync(again, random.GetItems(acknowledged, 50));
            await again.KillAsync();
        }
        using (var last = await OwnProcess.StartAsync(_folder)) {
            await AssertSuppressedAsync(last, _acknowledged);
            await AssertOnceInHistoryAsync(last, [_acknowledged.Last()]);
            await last.StopAsync();
        }
        Assert.Empty(Directory.GetFiles(_folder, "*.aside"));
        AssertConsistent();
    }

    /// <summary>feedback.db has each line of the journal once, and its daily counts are those of its events.</summary>
    void AssertConsistent() {
        int lines = Journal.Segments(Path.Combine(_folder, "journal"))
            .Sum(segment => File.ReadLines(Journal.PathOf(Path.Combine(_folder, "journal"), segment)).Count());
        using var database = new LiteDatabase($"Filename={Path.Combine(_folder, "feedback.db")};Collation=/Ordinal");
        BsonDocument[] events = [.. database.GetCollection("email_bounces").FindAll()];
        Assert.Equal(lines, events.Length);
        Assert.Equal(lines, database.GetCollection("suppressions").Count());
        var recount = events.CountBy(CounterOf).ToDictionary(count => count.Key, count => (long)count.Value);
        Assert.Equal(recount, database.GetCollection("daily").FindAll()
            .ToDictionary(day => day["_id"].AsString, day => day["n"].AsInt64));
    }

    static string CounterOf(BsonDocument each) {
        var at = DateTimeOffset.FromUnixTimeMilliseconds(each["bounced_at"].AsInt64);
        string day = at.ToString("yyyy-MM-dd", CultureInfo.InvariantCulture);
        return $"{day}|{each["kind"].AsString}|{each["type"].AsString}|{each["subtype"].AsString}";
    }
}
