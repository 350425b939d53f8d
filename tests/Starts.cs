using System.Collections.Concurrent;
using Microsoft.AspNetCore.Builder;
using Microsoft.Extensions.DependencyInjection;
using Microsoft.Extensions.Hosting;
using Microsoft.Extensions.Logging;
using Microsoft.Extensions.Time.Testing;

/// <summary>Stops a thread where it logs a line, with a clock on which every reading is long after the one before, so
/// that each progress line is due.</summary>
sealed class HeldLog(string line) : ILoggerProvider, ILogger {
    public Hold Reached { get; } = new();

    public void Hold(WebApplicationBuilder builder) {
        var clock = new FakeTimeProvider(new DateTimeOffset(2026, 11, 24, 8, 0, 0, TimeSpan.Zero));
        clock.AutoAdvanceAmount = TimeSpan.FromSeconds(6);
        builder.Services.AddSingleton<TimeProvider>(clock);
        builder.Logging.AddProvider(this);
    }

    public ILogger CreateLogger(string categoryName) => this;
    public IDisposable? BeginScope<TState>(TState state) where TState : notnull => null;
    public bool IsEnabled(LogLevel logLevel) => true;

    public void Log<TState>(LogLevel logLevel, EventId eventId, TState state, Exception? exception,
        Func<TState, Exception?, string> formatter) {
        if (formatter(state, exception).StartsWith(line, StringComparison.Ordinal)) Reached.Wait();
    }

    public void Dispose() => Reached.Dispose();
}

/// <summary>Asks for one address from before the store starts until it is found.</summary>
sealed class Asker(string address) : IHostedService {
    readonly ConcurrentDictionary<string, int> _answers = [];
    IFeedbackStore? _store;
    Task _asking = Task.CompletedTask;

    /// <summary>unknown, free or suppressed: what was answered at least once.</summary>
    public ICollection<string> Answers => _answers.Keys;

    public Asker Of(IServiceProvider services) {
        _store = services.GetRequiredService<IFeedbackStore>();
        return this;
    }

    public Task StartAsync(CancellationToken cancellationToken) {
        _asking = Task.Run(AskAsync, CancellationToken.None);
        return Task.CompletedTask;
    }

    async Task AskAsync() {
        while (!Answers.Contains("suppressed")) {
            var known = await _store!.FindAsync(address);
            _answers[known is null ? "unknown" : known.Suppressed ? "suppressed" : "free"] = 1;
        }
    }

    public Task FoundAsync() => _asking.WaitAsync(TimeSpan.FromSeconds(30), TestContext.Current.CancellationToken);
    public Task StopAsync(CancellationToken cancellationToken) => Task.CompletedTask;
}
