using System.Runtime.CompilerServices;
using Microsoft.Extensions.DependencyInjection;
using Microsoft.Extensions.Options;

/// <summary>How many entries wait for the follower is counted without reading the journal again.</summary>
public sealed class LagTests {
    [UnsafeAccessor(UnsafeAccessorKind.Field, Name = "_loaded")] static extern ref TaskCompletionSource LoadedOf(LiteDbStore store);
    [UnsafeAccessor(UnsafeAccessorKind.Field, Name = "_file")] static extern ref FeedbackFile FileOf(LiteDbStore store);

    [UnsafeAccessor(UnsafeAccessorKind.Field, Name = "_wake")] static extern ref AutoResetEvent WakeOf(LiteDbStore store);

    [Fact]
    public async Task The_follower_copies_nothing_that_is_not_flushed() {
        var disk = new WatchedDisk();
        await using var app = await ReceiverApp.StartAsync(disk: disk);
        var (store, journal) = (app.Services.GetRequiredService<LiteDbStore>(), app.Services.GetRequiredService<Journal>());
        using var flush = disk.HoldFlushes();
        var post = app.PostAsync(app.Sns.Bounce("jane@example.com"));
        await flush.ReachedAsync();
        WakeOf(store).Set();
        await Task.Delay(500, TestContext.Current.CancellationToken); // it would have been quicker
        Assert.True(FileOf(store).Applied <= journal.End);
        flush.LetGo();
        Assert.Equal(200, (await post).Status);
        Assert.Single(await app.HistoryAsync("jane@example.com"));
    }

    static bool IsLoaded(LiteDbStore store) => LoadedOf(store).Task.IsCompleted;

    static Task<ReceiverApp> StartAsync(FollowersClock clock, string folder, Disk? disk = null) => ReceiverApp.StartAsync(folder: folder, disk: disk,
        with: builder => builder.Services.AddSingleton<TimeProvider>(clock).AddSingleton(services => clock.Store = new(
            services.GetRequiredService<Journal>(), services.GetRequiredService<IOptions<ReceiverOptions>>(), clock, services.GetRequiredService<Log>())));

    static async Task<long?> BehindAsync(FollowersClock clock) => (await clock.Store.StateAsync()).BehindEntries;

    static async Task CaughtUpAsync(FollowersClock clock) {
        clock.Dispose();
        await Eventually.TrueAsync(async () => await BehindAsync(clock) == 0);
        Assert.Equal(0, (await clock.Store.StateAsync()).BehindBytes);
    }

    [Fact]
    public async Task Entries_that_lay_there_at_the_start_and_those_kept_since_are_counted_and_lines_that_try_the_disk_are_not() {
        string blank = new(' ', 4095);
        var (clock, disk) = (new FollowersClock(), new WatchedDisk());
        var hold = clock.HoldWhen(IsLoaded);
        await using var app = await StartAsync(clock, Lines.FolderOf(Lines.Bounce("a@example.com"), blank, "{\"at\":no entry}", Lines.Bounce("b@example.com")), disk);
        using var released = clock;
        await hold.ReachedAsync();
        Assert.Equal(3, await BehindAsync(clock));
        await app.PostAsync(app.Sns.Bounce("c@example.com"));
        Assert.Equal(4, await BehindAsync(clock));
        disk.OnWrite = WatchedDisk.WriteHalfAndFail;
        Assert.Equal(503, (await app.PostAsync(app.Sns.Bounce("d@example.com"))).Status);
        disk.OnWrite = RandomAccess.Write;
        Assert.True(await clock.Store.IsWritableAsync());
        Assert.Equal(4, await BehindAsync(clock));
        await CaughtUpAsync(clock);
    }

    [Fact]
    public async Task Each_batch_that_is_copied_makes_it_less() {
        var clock = new FollowersClock();
        var hold = clock.HoldWhen(store => IsLoaded(store) && FileOf(store).Applied > 0);
        await using var app = await StartAsync(clock, Lines.FolderOfBounces(300));
        using var released = clock;
        await hold.ReachedAsync();
        Assert.Equal(300 - 256, await BehindAsync(clock));
        await CaughtUpAsync(clock);
    }

    [Fact]
    public async Task A_file_that_is_built_anew_beside_a_running_receiver_is_behind_by_nobody_knows_how_many_until_it_is_not() {
        var clock = new FollowersClock();
        await using var app = await StartAsync(clock, Lines.FolderOfBounces(300));
        using var released = clock;
        await CaughtUpAsync(clock);
        var hold = clock.HoldWhen(store => FileOf(store).Applied == 0);
        FileOf(clock.Store).Abandon(); // what the store does when LiteDB fails
        FileOf(clock.Store).MoveAside("lost");
        await app.PostAsync(app.Sns.Bounce("new@example.com")); // wakes the follower
        await hold.ReachedAsync();
        Assert.Null(await BehindAsync(clock));
        hold = clock.HoldWhen(store => FileOf(store).Applied > 0);
        await hold.ReachedAsync();
        Assert.Null(await BehindAsync(clock));
        await CaughtUpAsync(clock);
    }
}
